"""``format="nir"``: a plain NIR graph, and beside it in the same HDF5 file the integers themselves.

The root of the file holds what every reader of NIR knows, ``version`` and ``node``, and a group
``spikequant`` of two byte strings that other readers pass over: ``network``, the `.spq` file of
the network byte for byte, and ``record``, JSON with the version, the hash of the network and one
SHA-256 for every value of the graph.  docs/nir-record.md has the bytes, ADR 0018 the reasons.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from spikequant.law.artifact import network_hash, to_bytes
from spikequant.law.errors import Unsupported
from spikequant.law.network import IntNet
from spikequant.readers.nir_.plain import DEFAULT_DT, PlainGraph, plain_graph
from spikequant.readers.nir_.records import NirNode, NirRecord, node_record

OPTIONS = ("dt",)
FILE = "network.nir"
RECORD_VERSION = 1
NIR_VERSION = "1.0.8"
GROUP = "spikequant"


def files(net: IntNet, *, dt: float = DEFAULT_DT) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The file, and what the manifest says about it.

    Args:
        net: the network.
        dt: length of one step in seconds; times of the graph are multiples of it.

    Raises:
        Unsupported: a node that NIR cannot express, by name and reason, or h5py is not installed.
    """
    graph = plain_graph(net, dt=dt)
    record = stored(graph.record)
    content = to_bytes(net)
    facts = {
        "nir": NIR_VERSION,
        "record": RECORD_VERSION,
        **dict(record.metadata),
        "nodes": graph.names,
        "deviations": list(graph.deviations),
    }
    return {FILE: _hdf5(record, content, _record_text(net, record), graph)}, facts


def stored(record: NirRecord) -> NirRecord:
    """The graph as a file holds it: reals as float32, whole numbers as int64, fields as a reader gives them."""
    nodes: dict[str, NirNode | NirRecord] = {}
    for name, node in record.nodes.items():
        assert isinstance(node, NirNode)
        fields = {key: _typed(f"node {name}: {key}", value) for key, value in node.fields.items()}
        nodes[name] = node_record(name, node.kind, fields, {})
    return NirRecord(nodes=nodes, edges=record.edges, metadata=record.metadata, version=NIR_VERSION)


def _typed(where: str, value: Any) -> Any:
    array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
    if array.dtype.kind != "f":
        return array.astype(np.int64)
    with np.errstate(over="ignore"):
        found = array.astype(np.float32)
    lost = bool(((found == 0) & (array != 0)).any())
    if not bool(np.isfinite(found).all()) or lost:
        worst = array.flat[int(np.argmax(np.abs(array)))]
        raise Unsupported(f"{where}: float32 cannot hold values such as {worst:g}; give the network another scale")
    return found


def value_hashes(record: NirRecord) -> dict[str, str]:
    """SHA-256 of every value of a graph by its path: kinds, fields, edges, metadata."""
    found = {"edges": _hash(sorted(list(edge) for edge in record.edges))}
    found |= {f"metadata/{key}": _hash(value) for key, value in record.metadata.items()}
    for name, node in record.nodes.items():
        place = f"nodes/{name}"
        if isinstance(node, NirRecord):
            found[f"{place}/type"] = _hash("NIRGraph")
            continue
        found[f"{place}/type"] = _hash(node.kind)
        found |= {f"{place}/metadata/{key}": _hash(value) for key, value in node.metadata.items()}
        found |= {f"{place}/{key}": _hash(value) for key, value in node.fields.items() if value is not None}
    return found


def _hash(value: Any) -> str:
    digest = hashlib.sha256()
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.ndim:
        digest.update(f"{value.dtype.newbyteorder('<').str} {list(value.shape)}\n".encode())
        digest.update(np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).tobytes())
    else:
        plain = value.item() if isinstance(value, (np.generic, np.ndarray)) and np.size(value) == 1 else value
        digest.update(json.dumps(plain, default=str, separators=(",", ":")).encode())
    return digest.hexdigest()


def _record_text(net: IntNet, record: NirRecord) -> bytes:
    found = {"version": RECORD_VERSION, "network": network_hash(net), "graph": value_hashes(record)}
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def _hdf5(record: NirRecord, network: bytes, text: bytes, graph: PlainGraph) -> bytes:
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unsupported("writing .nir files needs h5py; install spikequant[nir]") from error
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver=("earliest", "v108")) as file:
        words = h5py.string_dtype()
        file.create_dataset("version", data=NIR_VERSION, dtype=words)
        top = file.create_group("node")
        top.create_dataset("type", data="NIRGraph", dtype=words)
        top.create_dataset("edges", data=[list(edge) for edge in record.edges], dtype=words)
        _values(top.create_group("metadata"), record.metadata, words)
        for name, node in record.nodes.items():
            assert isinstance(node, NirNode)
            place = (
                top.create_group("nodes").create_group(name) if "nodes" not in top else top["nodes"].create_group(name)
            )
            place.create_dataset("type", data=node.kind, dtype=words)
            _values(place, node.fields, words)
        extra = file.create_group(GROUP)
        for key, content in (("network", network), ("record", text)):
            extra.create_dataset(key, data=np.frombuffer(content, dtype=np.uint8))
    return stream.getvalue()


def _values(group: Any, values: Mapping[str, Any], words: Any) -> None:
    for key, value in values.items():
        if isinstance(value, str):
            group.create_dataset(key, data=value, dtype=words)
        elif value is not None:
            found = np.asarray(value)
            group.create_dataset(key, data=found, **({"compression": "gzip"} if found.size > 64 else {}))

"""The `.spq` file: one safetensors file with a JSON header.  docs/format.md has the bytes.

The header's ``__metadata__`` holds one string, ``spikequant``: JSON with ``network`` (schema
version, nodes, edges, specs, decoder, metadata; arrays are named there and stored as
tensors of the smallest integer type) and ``sha256`` over the canonical text of ``network``
and every tensor.  One key, because safetensors does not fix the order of several.
Nothing is executed on load, no pickle is involved, and the widths are proven again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as as_bytes
from safetensors.numpy import save_file

from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError, SpikequantError
from spikequant.law.formats import IntFormat
from spikequant.law.network import (
    NETWORK_VERSION,
    Decoder,
    Edge,
    InputNode,
    IntNet,
    JoinNode,
    MatmulNode,
    NeuronNode,
    Node,
    PoolNode,
    ReshapeNode,
    SynapseNode,
    TestVectors,
)
from spikequant.law.products import Product
from spikequant.law.spec import NeuronSpec
from spikequant.law.widths import prove_network

NODE_TYPES: dict[str, type] = {
    "input": InputNode,
    "synapse": SynapseNode,
    "neuron": NeuronNode,
    "pool": PoolNode,
    "reshape": ReshapeNode,
    "join": JoinNode,
    "matmul": MatmulNode,
}
Tensors = dict[str, Any]


TYPES = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F64": np.float64}


def save(net: IntNet, path: str | os.PathLike[str]) -> None:
    """Write `net` to `path`: a temporary file in the same folder, synced, then renamed.

    Raises:
        ArtifactError: the folder is missing or cannot be written; an older file stays whole.
    """
    tensors, header = _content(net)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:
            raise ArtifactError(f"cannot write {path}: {error}; nothing was changed") from error


def to_bytes(net: IntNet) -> bytes:
    """What `save` writes."""
    tensors, header = _content(net)
    content: bytes = as_bytes(tensors, metadata=header)
    return content


def _content(net: IntNet) -> tuple[Tensors, dict[str, str]]:
    tensors: Tensors = {}
    text = _text(_pack(net, tensors))
    return tensors, {"spikequant": f'{{"network":{text},"sha256":"{content_hash(text, tensors)}"}}'}


def load(path: str | os.PathLike[str]) -> IntNet:
    """Read a network; its hash must match its content.

    Raises:
        ArtifactError: missing, truncated or changed file, unknown version or field.
    """
    source = Path(path)
    if not source.is_file():
        raise ArtifactError(f"{source} is not a file; expected a network written by IntNet.save (.spq)")
    try:
        return parse_bytes(source.read_bytes())
    except (ArtifactError, OSError) as error:
        raise ArtifactError(f"{source}: {error}") from error


def parse_bytes(content: bytes) -> IntNet:
    """The network in the bytes of a `.spq` file.

    Raises:
        ArtifactError: the bytes are no whole and sound file; nothing else is raised for any bytes.
    """
    try:
        header, tensors = _opened(content)
        if "spikequant" not in header:
            raise ArtifactError("it is a safetensors file, but not a spikequant network")
        outer = strict_json(header["spikequant"], "the header")
        if content_hash(_text(outer["network"]), tensors) != outer["sha256"]:
            raise ArtifactError("it was changed after it was written: its SHA-256 does not match its content")
        net = _unpack(outer["network"], tensors)
        prove_network(net)
        return net
    except ArtifactError:
        raise
    except SpikequantError as error:
        raise ArtifactError(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"the header is malformed ({type(error).__name__}: {error})") from error


def _opened(content: bytes) -> tuple[dict[str, Any], Tensors]:
    """The metadata and the tensors of a safetensors file."""
    try:
        found = {name: _tensor(entry) for name, entry in deserialize(content)}  # type: ignore[no-untyped-call]
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"it is not a readable .spq file ({error}); copy or export it again") from error
    return header.get("__metadata__") or {}, found


def _tensor(entry: dict[str, Any]) -> Any:
    if entry["dtype"] not in TYPES:
        raise ArtifactError(f"it holds a tensor of the type {entry['dtype']}; expected some of {', '.join(TYPES)}")
    dtype = np.dtype(TYPES[entry["dtype"]]).newbyteorder("<")
    return np.frombuffer(entry["data"], dtype=dtype).reshape(entry["shape"])


def strict_json(text: str | bytes, where: str) -> Any:
    """JSON without a key that is there twice, and without NaN or infinity.

    Raises:
        ArtifactError: anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ArtifactError(f"{where}: the key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
        return found

    def refuse(word: str) -> None:
        raise ArtifactError(f"{where}: {word} is no number of JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except ArtifactError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{where} is malformed ({type(error).__name__}: {error})") from error


def content_hash(text: str, tensors: Tensors) -> str:
    """SHA-256 over the JSON text and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def network_hash(net: IntNet) -> str:
    """The hash that a saved file of this network carries."""
    tensors: Tensors = {}
    return content_hash(_text(_pack(net, tensors)), tensors)


def _text(record: dict[str, Any]) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN."""
    try:
        return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the network's metadata or scales cannot be written as JSON: {error}") from error


def smallest(array: Any) -> Any:
    """`array` in the smallest signed integer type that holds it (floats stay float64)."""
    array = np.asarray(array)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    for dtype in (np.int8, np.int16, np.int32):
        info = np.iinfo(dtype)
        if array.size == 0 or (array.min() >= info.min and array.max() <= info.max):
            return array.astype(dtype)
    return array.astype(np.int64)


def _pack(net: IntNet, tensors: Tensors) -> dict[str, Any]:
    record: dict[str, Any] = {
        "version": net.version,
        "steps": net.steps,
        "target": net.target,
        "metadata": dict(net.metadata),
        "nodes": [_pack_node(node, tensors) for node in net.nodes],
        "decoder": _pack_fields(net.decoder, "decoder", tensors),
    }
    if net.vectors is not None:
        record["vectors"] = _pack_fields(net.vectors, "vectors", tensors)
    return record


def _pack_node(node: Node, tensors: Tensors) -> dict[str, Any]:
    kind = next(k for k, t in NODE_TYPES.items() if isinstance(node, t))
    return {"type": kind, **_pack_fields(node, f"nodes/{node.name}", tensors)}


def _pack_fields(thing: Any, prefix: str, tensors: Tensors) -> dict[str, Any]:
    return {
        f.name: _pack_value(getattr(thing, f.name), f"{prefix}/{f.name}", tensors) for f in dataclasses.fields(thing)
    }


def _pack_value(value: Any, name: str, tensors: Tensors) -> Any:
    if isinstance(value, np.ndarray):
        tensors[name] = smallest(value)
        return {"tensor": name}
    if isinstance(value, NeuronSpec):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return _pack_fields(value, name, tensors)
    if isinstance(value, (tuple, list)):
        return [_pack_value(item, f"{name}/{k}", tensors) for k, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _pack_value(item, f"{name}/{key}", tensors) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _unpack(record: dict[str, Any], tensors: Tensors) -> IntNet:
    if record["version"] != NETWORK_VERSION:
        raise ArtifactError(f"version {record['version']!r}; this release reads version {NETWORK_VERSION}")
    used: set[str] = set()
    record = {k: v if k == "metadata" else _restore(v, tensors, used) for k, v in record.items()}
    known = {"version", "steps", "target", "metadata", "nodes", "decoder", "vectors"}
    for name in sorted(set(record) - known):
        raise ArtifactError(f"unknown field {name!r} in the header")
    for name in sorted(set(tensors) - used):
        raise ArtifactError(f"the tensor {name!r} belongs to nothing in the header")
    vectors = record.get("vectors")
    return IntNet(
        nodes=tuple(_unpack_node(node) for node in record["nodes"]),
        decoder=_build(Decoder, record["decoder"]),
        steps=record["steps"],
        target=record["target"],
        vectors=_build(TestVectors, vectors) if vectors is not None else None,
        metadata=record["metadata"],
    )


def _restore(value: Any, tensors: Tensors, used: set[str]) -> Any:
    """Put the tensors back where the JSON names them."""
    if isinstance(value, dict):
        if set(value) == {"tensor"}:
            used.add(value["tensor"])
            array = tensors[value["tensor"]]
            return array if array.dtype.kind == "f" else array.astype(np.int64)
        return {key: _restore(item, tensors, used) for key, item in value.items()}
    if isinstance(value, list):
        return [_restore(item, tensors, used) for item in value]
    return value


def _unpack_node(record: dict[str, Any]) -> Node:
    fields = dict(record)
    kind = fields.pop("type")
    if kind not in NODE_TYPES:
        raise ArtifactError(f"unknown node type {kind!r}; expected one of {', '.join(NODE_TYPES)}")
    if "inputs" in fields:
        fields["inputs"] = tuple(_build(Edge, edge) for edge in fields["inputs"])
    if fields.get("format") is not None:
        fields["format"] = _build(IntFormat, fields["format"])
    if kind == "synapse":
        fields["product"] = _build(Product, fields["product"])
    if kind == "neuron":
        fields["spec"] = NeuronSpec.from_dict(fields["spec"])
    node: Node = _build(NODE_TYPES[kind], fields)
    return node


def _build(cls: Any, record: dict[str, Any]) -> Any:
    """A dataclass from its record: every field there, none besides; lists become tuples."""
    names = {f.name for f in dataclasses.fields(cls)}
    for name in sorted(set(record) ^ names):
        raise ArtifactError(f"{cls.__name__}: the field {name!r} is {'missing' if name in names else 'unknown'}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})

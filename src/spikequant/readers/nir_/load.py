"""`load_nir`: the integers out of a NIR file that `export(..., format="nir")` wrote, checked against its graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spikequant.law.artifact import network_hash, parse_bytes, strict_json
from spikequant.law.errors import ArtifactError, SpikequantError
from spikequant.law.network import IntNet
from spikequant.readers.nir_.plain import plain_graph
from spikequant.readers.nir_.records import NirRecord
from spikequant.readers.nir_.sources import load
from spikequant.readers.nir_.write import RECORD_VERSION, stored, value_hashes


def load_nir(path: str | os.PathLike[str]) -> IntNet:
    """The integer network of a NIR file, equal to the one that was exported.

    Three things must agree: the integers with their own hash, the graph with the hashes in the
    record, and the hashes with the graph that these integers give.  A file whose graph was edited
    is refused; `spikequant.from_nir` still reads that graph, as the real-valued network that it is now.

    Raises:
        ArtifactError: no such file, damaged, without a record, of another version, or edited; the
            message names the path inside the file.
    """
    source = Path(path)
    try:
        record = load(source)
        return _checked(record)
    except (SpikequantError, RecursionError) as error:
        raise ArtifactError(f"{source}: {str(error).removeprefix(f'{source}: ')}") from error


def _checked(record: NirRecord) -> IntNet:
    if not record.integers:
        raise ArtifactError(
            "this graph has no quantization record; read it as a real-valued network by spikequant.from_nir"
        )
    said = _record(_bytes(record.integers, "record"))
    if set(record.integers) != {"record", "network"}:
        raise ArtifactError(
            f"the group spikequant holds {', '.join(sorted(record.integers))}; expected network, record"
        )
    net = parse_bytes(_bytes(record.integers, "network"))
    if network_hash(net) != said["network"]:
        raise ArtifactError("spikequant/network is not the network that the record was written for; export it again")
    _compare(value_hashes(record), said["graph"], "it was changed after it was exported")
    dt = record.metadata.get("dt")
    if not isinstance(dt, float):
        raise ArtifactError(f"node/metadata/dt: {dt!r}; expected the length of a step in double precision")
    wanted = value_hashes(stored(plain_graph(net, dt=float(dt)).record))
    _compare(said["graph"], wanted, "the record does not belong to this graph")
    return net


def _compare(found: Mapping[str, str], wanted: Mapping[str, str], why: str) -> None:
    wrong = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if wrong:
        raise ArtifactError(
            f"the graph and its quantization record disagree at {wrong[0]!r} ({len(wrong)} such): {why}. Export the "
            "network again, or read the graph as it is now by spikequant.from_nir"
        )


def _bytes(group: Mapping[str, Any], name: str) -> bytes:
    value = group.get(name)
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 1:
        raise ArtifactError(f"spikequant/{name} is missing or no string of bytes; export the network again")
    return value.tobytes()


def _record(text: bytes) -> dict[str, Any]:
    said = strict_json(text, "spikequant/record")
    if not isinstance(said, dict) or said.get("version") != RECORD_VERSION:
        version = said.get("version") if isinstance(said, dict) else None
        raise ArtifactError(f"spikequant/record: version {version!r}; this release reads version {RECORD_VERSION}")
    if set(said) != {"version", "network", "graph"} or not isinstance(said["graph"], dict):
        raise ArtifactError("spikequant/record: expected the fields graph, network, version")
    return said

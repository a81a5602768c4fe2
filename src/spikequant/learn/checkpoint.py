"""A learning network in one safetensors file: weights, thresholds, position, and what it has shown so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError, SpikequantError
from spikequant.learn.config import DiehlCook, Precision
from spikequant.learn.network import Network

VERSION = 1


def save_network(network: Network, path: Path | str, *, facts: dict[str, Any] | None = None, **arrays: Any) -> None:
    """Write everything that the next image depends on, whole or not at all.

    Args:
        network: what is written.
        path: the file; its folder is made.
        facts: JSON-able, kept beside it.
        arrays: more arrays to keep, read back by `load_checkpoint`.

    Raises:
        ArtifactError: it cannot be written; an older file stays whole.
    """
    target = Path(path)
    record = {
        "version": VERSION,
        "config": network.config.to_dict(),
        "precision": network.precision.to_dict(),
        "seen": network.seen,
        "common": network.common,
        "facts": facts or {},
    }
    tensors = {"weights": network.weights, "adaptive": network.adaptive}
    tensors |= {f"extra/{name}": np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"learn: cannot make the folder {target.parent}: {error}") from error
    with replacing(target) as temporary:
        try:
            save_file(tensors, temporary, metadata={"learn": json.dumps(record)})
        except SafetensorError as error:
            raise ArtifactError(f"learn: cannot write {target}: {error}; the last one is unchanged") from error


def load_checkpoint(path: Path | str, *, engine: str = "auto") -> tuple[Network, dict[str, Any], dict[str, Any]]:
    """The network, the facts and the other arrays of `save_network`.

    Raises:
        ArtifactError: missing, truncated, of another version, or not written by `save_network`.
    """
    if not Path(path).is_file():
        raise ArtifactError(f"learn: {path} is not a file; expected a network written by save_network")
    try:
        with safe_open(str(path), framework="numpy") as opened:
            record = json.loads((opened.metadata() or {})["learn"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if record["version"] != VERSION:
            raise ArtifactError(f"learn: {path} has version {record['version']}; this release reads {VERSION}")
        network = Network(DiehlCook(**record["config"]), Precision.from_dict(record["precision"]), engine=engine)
        _fill(network, tensors.pop("weights"), tensors.pop("adaptive"), int(record["seen"]))
        network.common = int(record.get("common", 0))  # files of before have none
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, SpikequantError):
            raise
        raise ArtifactError(f"learn: {path} is not a network of learn ({error}); delete it or name another") from error
    return network, record["facts"], {name.removeprefix("extra/"): array for name, array in tensors.items()}


def load_network(path: Path | str, *, engine: str = "auto") -> Network:
    """The network of a file that `save_network` or a training wrote."""
    return load_checkpoint(path, engine=engine)[0]


def _fill(network: Network, weights: Any, adaptive: Any, seen: int) -> None:
    for name, given in (("weights", weights), ("adaptive", adaptive)):
        wanted = getattr(network, name)
        if given.shape != wanted.shape or given.dtype != wanted.dtype:
            raise ValueError(f"{name} are {given.dtype} {given.shape}, expected {wanted.dtype} {wanted.shape}")
    network.weights, network.adaptive, network.seen = weights.copy(), adaptive.copy(), seen

"""The file of a `Comparison`: safetensors with a JSON header, never pickle.

The header's ``__metadata__`` holds one string, ``spikequant-comparison``: JSON with
``version``, ``comparison`` (every field; an array is ``{"tensor": name}``) and ``sha256``
over the canonical text of ``comparison`` and every tensor.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from spikequant.analyse.records import Comparison, LayerBehaviour, Raster
from spikequant.analyse.side import AnnBaseline, LayerOperations, Side
from spikequant.law.artifact import content_hash
from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError, SpikequantError
from spikequant.measure import CLayerMemory, CMemory, Divergence, EnergyPj, MemoryRow

KEY, VERSION = "spikequant-comparison", 1
C = TypeVar("C", bound=Comparison)
Tensors = dict[str, Any]


def save(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Write `comparison` to `path`, whole or not at all.

    Raises:
        ArtifactError: the folder is missing or cannot be written; an older file stays whole.
    """
    tensors: Tensors = {}
    record = _pack(comparison, "comparison", tensors)
    text = _text(record)
    header = {KEY: f'{{"comparison":{text},"sha256":"{content_hash(text, tensors)}","version":{VERSION}}}'}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:
            raise ArtifactError(f"cannot write {path}: {error}; nothing was changed") from error


def load(cls: type[C], path: str | os.PathLike[str]) -> C:
    """Read a comparison; its hash must match its content.

    Raises:
        ArtifactError: missing, truncated, changed or foreign file, unknown version or field.
    """
    source = Path(path)
    if not source.is_file():
        raise ArtifactError(f"{source} is not a file; expected one written by Comparison.save")
    try:
        with safe_open(str(source), framework="numpy") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{source} is not a readable comparison ({error}); run compare again") from error
    if KEY not in header:
        raise ArtifactError(f"{source} is a safetensors file, but not a comparison written by Comparison.save")
    try:
        outer = json.loads(header[KEY])
        if outer["version"] != VERSION:
            raise ArtifactError(f"version {outer['version']!r} of the comparison file; this release reads {VERSION}")
        if content_hash(_text(outer["comparison"]), tensors) != outer["sha256"]:
            raise ArtifactError("it was changed after it was written: its SHA-256 does not match its content")
        return _comparison(cls, outer["comparison"], tensors)
    except SpikequantError as error:
        raise ArtifactError(f"{source}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{source}: the header is malformed ({type(error).__name__}: {error})") from error


def _text(record: Any) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _pack(value: Any, name: str, tensors: Tensors) -> Any:
    if isinstance(value, np.ndarray):
        tensors[name] = np.ascontiguousarray(value)
        return {"tensor": name}
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {f.name: _pack(getattr(value, f.name), f"{name}/{f.name}", tensors) for f in fields}
    if isinstance(value, (tuple, list)):
        return [_pack(item, f"{name}/{k}", tensors) for k, item in enumerate(value)]
    if isinstance(value, float) and math.isnan(value):
        return {"number": "nan"}
    return value.item() if isinstance(value, np.generic) else value


def _restore(value: Any, tensors: Tensors) -> Any:
    """Put tensors and NaN back; lists become tuples."""
    if isinstance(value, list):
        return tuple(_restore(item, tensors) for item in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"tensor"}:
        return tensors[value["tensor"]]
    if value == {"number": "nan"}:
        return float("nan")
    return {key: _restore(item, tensors) for key, item in value.items()}


def _comparison(cls: type[C], record: dict[str, Any], tensors: Tensors) -> C:
    fields = _restore(record, tensors)
    fields["reference"], fields["quantized"] = _side(fields["reference"]), _side(fields["quantized"])
    fields["layers"] = tuple(_build(LayerBehaviour, layer) for layer in fields["layers"])
    fields["rasters"] = tuple(_build(Raster, raster) for raster in fields["rasters"])
    if fields["first_divergence"] is not None:
        fields["first_divergence"] = _build(Divergence, fields["first_divergence"])
    if fields["ann"] is not None:
        fields["ann"] = _build(AnnBaseline, {**fields["ann"], "side": _side(fields["ann"]["side"])})
    found: C = _build(cls, fields)
    return found


def _side(record: dict[str, Any]) -> Side:
    memory = tuple(_build(MemoryRow, row) for row in record["memory"])
    operations = tuple(_build(LayerOperations, row) for row in record["operations"])
    energy = _build(EnergyPj, record["energy"])
    in_c = None if record.get("in_c") is None else _c_memory(record["in_c"])
    parts = {"memory": memory, "operations": operations, "energy": energy, "in_c": in_c}
    side: Side = _build(Side, {**record, **parts})
    return side


def _c_memory(record: dict[str, Any]) -> CMemory:
    layers = tuple(_build(CLayerMemory, layer) for layer in record["layers"])
    found: CMemory = _build(CMemory, {**record, "layers": layers})
    return found


def _build(cls: Any, record: dict[str, Any]) -> Any:
    """A dataclass from its record: every field there, none besides."""
    names = {f.name for f in dataclasses.fields(cls)}
    for name in sorted(set(record) ^ names):
        raise ArtifactError(f"{cls.__name__}: the field {name!r} is {'missing' if name in names else 'unknown'}")
    return cls(**record)

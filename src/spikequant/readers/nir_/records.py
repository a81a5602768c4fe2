"""A NIR graph as plain records: which primitives there are, their fields, and what each field may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError, Unsupported

MOST_AXES = 8
MOST_NAME = 200
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class NirNode:
    """One primitive: its kind and its checked fields (arrays, whole numbers, tuples of whole numbers, words)."""

    kind: str
    fields: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NirRecord:
    """A graph: nodes (primitives or graphs) by name, and directed edges between them."""

    nodes: Mapping[str, NirNode | NirRecord]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    integers: Mapping[str, Any] = field(default_factory=dict)
    """The quantization record beside the graph (`readers/nir_/load.py`); empty in a graph of another writer."""


def array(where: str, value: Any) -> Array:
    """Finite real numbers."""
    found = np.asarray(value)
    if found.dtype.kind not in "iufb" or found.ndim > MOST_AXES:
        raise DataError(f"{where}: holds {found.dtype} with {found.ndim} axes; expected an array of real numbers")
    if found.size == 0 or not bool(np.isfinite(found).all()):
        raise DataError(f"{where}: is empty or holds NaN or infinite values; expected finite numbers")
    return found


def whole(where: str, value: Any) -> int:
    """One whole number."""
    numbers = wholes(where, value)
    if len(numbers) != 1:
        raise DataError(f"{where}: {numbers}; expected one whole number")
    return numbers[0]


def wholes(where: str, value: Any) -> tuple[int, ...]:
    """Whole numbers, as for a shape or a stride."""
    found = np.atleast_1d(np.asarray(value))
    if found.dtype.kind not in "iuf" or found.ndim > 1 or not 1 <= found.size <= MOST_AXES:
        raise DataError(f"{where}: {str(value)[:60]}; expected one to {MOST_AXES} whole numbers")
    if not bool(np.isfinite(found).all()) or bool((found != np.floor(found)).any()) or np.abs(found).max() >= 2**31:
        raise DataError(f"{where}: {found.tolist()}; expected whole numbers")
    return tuple(int(number) for number in found)


def shape(where: str, value: Any) -> tuple[int, ...]:
    """A shape without time and batch: every axis at least 1."""
    found = wholes(where, value)
    if min(found) < 1:
        raise DataError(f"{where}: the shape {found}; every axis must be at least 1")
    return found


def padding(where: str, value: Any) -> Any:
    """Whole numbers, or one of the words of convolutions."""
    if isinstance(value, str):
        if value not in ("same", "valid"):
            raise DataError(f"{where}: {value[:40]!r}; expected 'same', 'valid' or whole numbers")
        return value
    return wholes(where, value)


@dataclass(frozen=True)
class Rule:
    """How one field is read; `default` where it may be left out."""

    read: Callable[[str, Any], Any]
    needed: bool = True
    default: Any = None


_ARRAY, _WHOLES = Rule(array), Rule(wholes)
_RESET, _W_IN, _SHAPE = Rule(array, False), Rule(array, False, np.ones(())), Rule(shape, False)
_CONV = {"weight": _ARRAY, "bias": _ARRAY, "stride": _WHOLES, "padding": Rule(padding), "dilation": _WHOLES,
         "groups": Rule(whole), "input_shape": _SHAPE}  # fmt: skip
_POOL = {"kernel_size": _WHOLES, "stride": _WHOLES, "padding": _WHOLES}
_LI = {"tau": _ARRAY, "r": _ARRAY, "v_leak": _ARRAY}
_CUBA = {"tau_syn": _ARRAY, "tau_mem": _ARRAY, "r": _ARRAY, "v_leak": _ARRAY, "w_in": _W_IN}
_FIRES = {"v_threshold": _ARRAY, "v_reset": _RESET}

PRIMITIVES: dict[str, dict[str, Rule]] = {
    "Input": {"shape": Rule(shape)},
    "Output": {"shape": _SHAPE},
    "Affine": {"weight": _ARRAY, "bias": _ARRAY},
    "Linear": {"weight": _ARRAY},
    "Scale": {"scale": _ARRAY},
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "SumPool2d": _POOL,
    "AvgPool2d": _POOL,
    "Flatten": {"input_type": _SHAPE, "start_dim": Rule(whole, False, 1), "end_dim": Rule(whole, False, -1)},
    "IF": {"r": _ARRAY, **_FIRES},
    "LIF": {**_LI, **_FIRES},
    "CubaLIF": {**_CUBA, **_FIRES},
    "LI": _LI,
    "I": {"r": _ARRAY},
    "CubaLI": _CUBA,
    "Delay": {"delay": _ARRAY},
    "Threshold": {"threshold": _ARRAY},
}
"""The primitives of NIR 1.0.8 and their fields."""

SPIKING = ("IF", "LIF", "CubaLIF", "Threshold")
INTEGRATORS = ("LI", "I", "CubaLI")
NEURONS = (*SPIKING, *INTEGRATORS)
WEIGHTED = ("Affine", "Linear", "Conv1d", "Conv2d")


def node_record(where: str, kind: str, given: Mapping[str, Any], metadata: Mapping[str, Any]) -> NirNode:
    """A checked primitive.

    Raises:
        Unsupported: an unknown primitive, or a field that this primitive does not have.
        DataError: a field is missing or holds what it must not.
    """
    rules = PRIMITIVES.get(kind)
    if rules is None:
        raise Unsupported(f"{where}: the primitive {kind[:40]!r} is unknown; expected one of {', '.join(PRIMITIVES)}")
    unknown = sorted(set(given) - set(rules))
    if unknown:
        raise Unsupported(f"{where}: a {kind} has no field {unknown[0][:40]!r}; expected {', '.join(rules)}")
    fields: dict[str, Any] = {}
    for name, rule in rules.items():
        value = given.get(name)
        if value is None and rule.needed:
            raise DataError(f"{where}: this {kind} lacks the field {name!r}; expected {', '.join(rules)}")
        fields[name] = rule.default if value is None else rule.read(f"{where}.{name}", value)
    return NirNode(kind=kind, fields=fields, metadata=metadata)


def check_name(where: str, name: str) -> None:
    """A node name that can be a part of a path."""
    if not name or len(name) > MOST_NAME or not name.isprintable():
        raise DataError(f"{where}: the node name {name[:40]!r}; expected 1 to {MOST_NAME} printable characters")

"""The JSON record of a network: objects to plain data and back, every field with its type and range.

What comes from a file is never trusted: a field is read by the rule that `RULES` has for it, and the
error names its path, what was found and what was expected.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from spikequant.law.errors import ArtifactError
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
from spikequant.law.spec import MOST_LEVELS, Leak, NeuronSpec, StateFormat, read_version

NODE_TYPES: dict[str, type] = {
    "input": InputNode,
    "synapse": SynapseNode,
    "neuron": NeuronNode,
    "pool": PoolNode,
    "reshape": ReshapeNode,
    "join": JoinNode,
    "matmul": MatmulNode,
}
MOST_NODES = 4096
MOST_INPUTS = 4096
MOST_AXES = 8
MOST_TEXT = 1000
WORD = 2**63
OPTIONAL = {"codebook", "levels"}
"""Later than the first version: written only where they say something; other files stay as they are."""
Tensors = dict[str, Any]


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


def pack(net: IntNet, tensors: Tensors) -> dict[str, Any]:
    """The record of a network; its arrays go into `tensors`."""
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
    values = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing)}
    written = {k: v for k, v in values.items() if v is not None or k not in OPTIONAL}
    return {name: _pack_value(value, f"{prefix}/{name}", tensors) for name, value in written.items()}


def _pack_value(value: Any, name: str, tensors: Tensors) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not bool(np.isfinite(value).all()):
            raise ArtifactError(f"{name}: holds NaN or infinite values, which no loader takes; give finite scales")
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


@dataclasses.dataclass(frozen=True)
class Source:
    """Where values come from: the tensors of the file, and those that were referred to."""

    tensors: Tensors
    used: set[str] = dataclasses.field(default_factory=set)


Rule = Callable[[Source, str, Any], Any]


def unpack(record: Any, tensors: Tensors) -> IntNet:
    """The network of a record.

    Raises:
        ArtifactError: a field is unknown, missing, or holds what it must not; the message has its path.
        Unsupported, WidthError: a network that no reader could run.
    """
    if not isinstance(record, dict):
        raise ArtifactError(f"network: {_short(record)}; expected an object")
    if record.get("version") != NETWORK_VERSION or isinstance(record["version"], (bool, float)):
        raise ArtifactError(f"version {record.get('version')!r}; this release reads version {NETWORK_VERSION}")
    source = Source(tensors)
    known = {"version", "steps", "target", "metadata", "nodes", "decoder", "vectors"}
    for name in sorted(set(record) - known):
        raise ArtifactError(f"unknown field {name!r} in the header")
    for name in sorted(known - set(record) - {"vectors"}):
        raise ArtifactError(f"the field {name!r} is missing in the header")
    nodes = record["nodes"]
    if not isinstance(nodes, list) or not 1 <= len(nodes) <= MOST_NODES:
        raise ArtifactError(f"nodes: {_short(nodes)}; expected a list of 1 to {MOST_NODES} nodes")
    vectors = record.get("vectors")
    net = IntNet(
        nodes=tuple(_node(source, f"nodes/{k}", node) for k, node in enumerate(nodes)),
        decoder=_object(Decoder)(source, "decoder", record["decoder"]),
        steps=_whole(1, 2**20)(source, "steps", record["steps"]),
        target=_text(source, "target", record["target"]),
        vectors=_object(TestVectors)(source, "vectors", vectors) if vectors is not None else None,
        metadata=_mapping(source, "metadata", record["metadata"]),
    )
    for name in sorted(set(tensors) - source.used):
        raise ArtifactError(f"the tensor {name!r} belongs to nothing in the header")
    return net


def _node(source: Source, where: str, record: Any) -> Node:
    if not isinstance(record, dict) or not isinstance(record.get("type"), str):
        raise ArtifactError(f"{where}: {_short(record)}; expected an object with a type")
    fields = dict(record)
    kind = fields.pop("type")
    if kind not in NODE_TYPES:
        raise ArtifactError(f"{where}: unknown node type {kind[:40]!r}; expected one of {', '.join(NODE_TYPES)}")
    name = fields.get("name")
    node: Node = _object(NODE_TYPES[kind])(source, f"nodes/{name[:60]}" if isinstance(name, str) else where, fields)
    return node


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def _object(cls: Any) -> Rule:
    """A dataclass: every field there, none besides."""

    def read(source: Source, where: str, record: Any) -> Any:
        if not isinstance(record, dict):
            raise ArtifactError(f"{where}: {_short(record)}; expected an object ({cls.__name__})")
        rules = RULES[cls]
        for name in sorted(set(record) - set(rules)):
            raise ArtifactError(f"{where}: {cls.__name__}: the field {name[:60]!r} is unknown")
        for name in sorted(set(rules) - set(record) - OPTIONAL):
            raise ArtifactError(f"{where}: {cls.__name__}: the field {name!r} is missing")
        given = {name: rule for name, rule in rules.items() if name in record}
        return cls(**{name: rule(source, f"{where}/{name}", record[name]) for name, rule in given.items()})

    return read


def _spec(source: Source, where: str, record: Any) -> NeuronSpec:
    """A neuron spec; another version is said before any field."""
    if isinstance(record, dict):
        read_version(record)
    spec: NeuronSpec = _object(NeuronSpec)(source, where, record)
    return spec


def _whole(low: int, high: int) -> Rule:
    def read(_: Source, where: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ArtifactError(f"{where}: {_short(value)}; expected a whole number from {low} to {high}")
        return value

    return read


def _flag(_: Source, where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ArtifactError(f"{where}: {_short(value)}; expected true or false")
    return value


def _text(_: Source, where: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise ArtifactError(f"{where}: {_short(value)}; expected a text of at most {MOST_TEXT} characters")
    return value


def _real(_: Source, where: str, value: Any) -> float:
    if not isinstance(value, float) or not math.isfinite(value):
        raise ArtifactError(f"{where}: {_short(value)}; expected a finite number with a fraction or exponent")
    return value


def _positive(source: Source, where: str, value: Any) -> float:
    found: float = value if type(value) is int else _real(source, where, value)
    if found <= 0:
        raise ArtifactError(f"{where}: {_short(value)}; expected a positive number")
    return found


def _mapping(_: Source, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArtifactError(f"{where}: {_short(value)}; expected an object")
    return value


def _list(rule: Rule, most: int) -> Rule:
    def read(source: Source, where: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise ArtifactError(f"{where}: {_short(value)}; expected a list of at most {most} values")
        return tuple(rule(source, f"{where}/{k}", item) for k, item in enumerate(value))

    return read


def _maybe(rule: Rule) -> Rule:
    return lambda source, where, value: None if value is None else rule(source, where, value)


def _array(kind: str) -> Rule:
    """A tensor of the file (kind ``i`` or ``f``), or one number."""

    def read(source: Source, where: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _referred(source, where, value, kind)
        good = type(value) is int and -WORD <= value < WORD if kind == "i" else type(value) in (int, float)
        if not good:
            raise ArtifactError(f"{where}: {_short(value)}; expected a tensor or one number")
        return value

    return read


def _referred(source: Source, where: str, value: dict[str, Any], kind: str) -> Any:
    name = value.get("tensor")
    if set(value) != {"tensor"} or not isinstance(name, str) or name not in source.tensors:
        raise ArtifactError(f"{where}: {_short(name)} is no tensor of the file")
    if name in source.used:
        raise ArtifactError(f"{where}: the tensor {name!r} belongs to another field already")
    source.used.add(name)
    array = source.tensors[name]
    if array.dtype.kind != kind:
        raise ArtifactError(f"{where}: holds {array.dtype}; expected {'integers' if kind == 'i' else 'F64'}")
    if kind == "f" and not bool(np.isfinite(array).all()):
        raise ArtifactError(f"{where}: holds NaN or infinite values; expected finite numbers")
    return array.astype(np.int64) if kind == "i" else array


def _codes(source: Source, where: str, value: Any) -> Any:
    """Integers with axes."""
    found = _array("i")(source, where, value)
    if not isinstance(found, np.ndarray) or not 2 <= found.ndim <= MOST_AXES or found.size == 0:
        raise ArtifactError(f"{where}: expected a tensor of 2 to {MOST_AXES} axes with values")
    return found


def _params(source: Source, where: str, value: Any) -> dict[str, Any]:
    integers = _array("i")
    return {key: integers(source, f"{where}/{key[:60]}", item) for key, item in _mapping(source, where, value).items()}


_SHAPE = _list(_whole(1, 2**31), MOST_AXES)
_SIZES = _list(_whole(1, 2**31), MOST_AXES)
_EDGES = _list(_object(Edge), MOST_INPUTS)
_NODE: dict[str, Rule] = {"name": _text, "shape": _SHAPE, "inputs": _EDGES}
_PADDING = _list(_whole(0, 2**31), MOST_AXES)
_LEAK, _REGISTER = _object(Leak), _maybe(_object(StateFormat))
RULES: Mapping[Any, Mapping[str, Rule]] = {
    Edge: {"source": _text, "delay": _whole(0, 2**16)},
    IntFormat: {"bits": _whole(1, 64), "signed": _flag, "narrow": _flag, "multiple_of": _whole(1, 2**62)},
    Leak: {"form": _text, "bits": _whole(0, 62), "rounding": _maybe(_text)},
    StateFormat: {"format": _object(IntFormat), "overflow": _text, "rounding": _text, "levels": _whole(2, MOST_LEVELS)},
    Product: {
        "kind": _text, "codes": _codes, "stride": _SIZES, "padding": _PADDING, "dilation": _SIZES,
        "groups": _whole(1, 2**31), "pad_code": _array("i"),
    },
    NeuronSpec: {
        "order": _list(_text, 32), "leak": _LEAK, "leak_i": _maybe(_LEAK), "leak_a": _maybe(_LEAK), "reset": _text,
        "compare": _text, "lower": _text, "spikes_max": _whole(1, 31), "refractory": _whole(0, 2**16),
        "refractory_mode": _text, "adapt_every": _whole(1, 2**31), "adapt_in_reset": _flag, "output": _text,
        "fraction_bits": _whole(0, 32), "v": _REGISTER, "i": _REGISTER, "a": _REGISTER, "x": _REGISTER,
        "version": _whole(0, 2**31),
    },
    InputNode: {
        "name": _text, "shape": _SHAPE, "format": _object(IntFormat), "static": _flag, "scale": _maybe(_positive),
    },
    SynapseNode: {
        **_NODE, "product": _object(Product), "format": _object(IntFormat), "bits": _whole(1, 32),
        "scale": _maybe(_array("f")), "codebook": _codes,
    },
    NeuronNode: {
        **_NODE, "gains": _list(_array("i"), MOST_INPUTS), "spec": _spec, "params": _params,
        "seed": _whole(0, 2**64 - 1), "scale": _maybe(_array("f")),
    },
    PoolNode: {**_NODE, "kind": _text, "kernel": _SIZES, "stride": _SIZES, "padding": _PADDING},
    ReshapeNode: _NODE,
    JoinNode: {**_NODE, "kind": _text, "gains": _list(_whole(-WORD, WORD - 1), MOST_INPUTS), "axis": _whole(0, 31)},
    MatmulNode: {**_NODE, "transpose_second": _flag},
    Decoder: {"name": _text, "source": _text, "gains": _maybe(_array("i")), "scale": _real},
    TestVectors: {"inputs": _array("i"), "scores": _array("i")},
}  # fmt: skip
"""How every field of every object is read."""

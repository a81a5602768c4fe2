"""A graph under construction: nodes, constants and casts, with names that a viewer can be read by.

Every tensor is an integer or a truth value; there is no floating-point tensor in any model that we write.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.readers.names import plain

INT32, INT64, UINT8, INT8, BOOL = "int32", "int64", "uint8", "int8", "bool"
INSTALL = "install it with: pip install 'spikequant[onnx]'"


def library(name: str) -> Any:
    """The module `name`, imported when it is needed.

    Raises:
        Unsupported: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unsupported(f"ONNX export needs the package {name}, which is not installed; {INSTALL}") from error


def kind_for(low: int, high: int, where: str = "") -> str:
    """Element type of values in ``[low, high]``: int32, or int64 where that is too small.

    >>> kind_for(0, 2**31 - 1), kind_for(0, 2**31)
    ('int32', 'int64')
    """
    if low >= -(2**31) and high < 2**31:
        return INT32
    if low >= -(2**63) and high < 2**63:
        return INT64
    raise Unsupported(f"{where or 'a value'} reaches from {low} to {high}, more than the 64 bits of an ONNX integer")


@dataclass(frozen=True)
class Value:
    """A tensor by name; ``full`` unless it may lack the batch axis or others."""

    name: str
    kind: str
    full: bool = True


@dataclass
class Graph:
    """Nodes and constants in order; ``scope`` stands before the names of what is added.

    ``pack``: 0, or the widest opset whose packed integer types may be used for weights.
    """

    onnx: Any
    prefix: str = ""
    pack: int = 0
    scope: str = ""
    nodes: list[Any] = field(default_factory=list)
    constants: dict[tuple[Any, ...], Value] = field(default_factory=dict)
    initializers: list[Any] = field(default_factory=list)
    casts: dict[tuple[str, str], Value] = field(default_factory=dict)
    count: int = 0

    def fresh(self, word: str) -> str:
        """A name that is not taken."""
        self.count += 1
        return f"{self.prefix}{self.scope}/{word}_{self.count}" if self.scope else f"{self.prefix}{word}_{self.count}"

    def op(self, word: str, *inputs: Value, kind: str = "", name: str = "", **attributes: Any) -> Value:
        """Append a node of one output; its type is that of the first input unless `kind` says otherwise."""
        result = Value(name or self.fresh(word), kind or inputs[0].kind, any(v.full for v in inputs))
        names = [v.name for v in inputs]
        self.nodes.append(self.onnx.helper.make_node(word, names, [result.name], name=result.name, **attributes))
        return result

    def multi(self, word: str, inputs: list[Value], outputs: list[Value], **attributes: Any) -> None:
        """Append a node of several outputs."""
        names, results = [v.name for v in inputs], [v.name for v in outputs]
        self.nodes.append(self.onnx.helper.make_node(word, names, results, name=self.fresh(word), **attributes))

    def maximum(self, a: Value, b: Value) -> Value:
        """The larger of two.

        ONNX Runtime 1.31 compares int64 in `Max`, `Min`, `Clip` and `ReduceMax` wrongly where the upper 32 bits of two
        values agree: the lower ones count as signed (measured on x86 with AVX-512; 3245960897 against 2286 gives 2286).
        `GreaterOrEqual` and `Where` are right, so int64 goes through these.
        """
        if a.kind == INT64:
            return self.op("Where", self.op("GreaterOrEqual", a, b, kind=BOOL), a, b, kind=INT64)
        return self.op("Max", a, b)

    def clip(self, a: Value, low: int, high: int) -> Value:
        """`a` inside ``[low, high]``."""
        least, most = self.const(low, a.kind), self.const(high, a.kind)
        if a.kind != INT64:
            return self.op("Clip", a, least, most)
        above = self.op("Where", self.op("Less", a, most, kind=BOOL), a, most, kind=INT64)
        return self.maximum(above, least)

    def const(self, array: Any, kind: str = INT64, word: str = "") -> Value:
        """A constant; equal ones are stored once."""
        stored = np.ascontiguousarray(array, dtype=kind) if np.ndim(array) else np.asarray(array, dtype=kind)
        key = (kind, stored.shape, stored.tobytes())
        if key not in self.constants:
            value = Value(self.fresh(word or "const"), kind, full=False)
            self.initializers.append(self.onnx.numpy_helper.from_array(stored, value.name))
            self.constants[key] = value
        return self.constants[key]

    def weights(self, codes: Any, *, unsigned: bool = False) -> tuple[Value, int]:
        """Weight codes of -128 to 127 as 8-bit integers, and their zero point.

        From a packed type of 4 or 2 bits where `pack` allows and they fit.  `unsigned`: as uint8, counted from the
        lowest code of that width.
        """
        bits = self._packed_bits(codes)
        zero = 2 ** (bits - 1) if unsigned else 0
        sign, whole = ("u", UINT8) if unsigned else ("", INT8)
        if bits == 8:
            return self.const(codes + zero, whole, "weight"), zero
        kind = getattr(self.onnx.TensorProto, f"{sign}int{bits}".upper())
        value = Value(self.fresh(f"weight_{sign}int{bits}"), f"{sign}int{bits}", full=False)
        raw = packed(codes + zero, bits)
        self.initializers.append(self.onnx.helper.make_tensor(value.name, kind, codes.shape, raw, raw=True))
        return self.cast(value, whole), zero

    def _packed_bits(self, codes: Any) -> int:
        low, high = int(np.min(codes)), int(np.max(codes))
        if self.pack >= PACKED_OPSET[2] and low >= -2 and high <= 1:
            return 2
        return 4 if self.pack >= PACKED_OPSET[4] and low >= -8 and high <= 7 else 8

    def cast(self, value: Value, kind: str) -> Value:
        """`value` as another type; the same cast is made once."""
        if value.kind == kind:
            return value
        key = (value.name, kind)
        if key not in self.casts:
            self.casts[key] = self.op("Cast", value, kind=kind, to=self.type(kind))
        return self.casts[key]

    def type(self, kind: str) -> int:
        """ONNX's number of an element type."""
        return int(getattr(self.onnx.TensorProto, kind.upper()))

    def info(self, name: str, kind: str, shape: tuple[Any, ...]) -> Any:
        """Type and shape of an input or output."""
        return self.onnx.helper.make_tensor_value_info(name, self.type(kind), list(shape))


PACKED_OPSET = {4: 21, 2: 25}
"""The opset that brought int4, and int2."""


def packed(codes: Any, bits: int) -> bytes:
    r"""Codes in two's complement, 2 or 4 to a byte, the first in the lowest bits.

    >>> packed(np.array([-2, 1, 3]), 4), packed(np.array([-2, 1, 0, -1, 1]), 2)
    (b'\x1e\x03', b'\xc6\x01')
    """
    per_byte = 8 // bits
    flat = np.asarray(codes).reshape(-1).astype(np.int64) & (2**bits - 1)
    padded = np.concatenate([flat, np.zeros(-flat.size % per_byte, np.int64)]).reshape(-1, per_byte)
    return np.asarray((padded << (bits * np.arange(per_byte))).sum(axis=1), dtype=np.uint8).tobytes()


def unique_names(names: list[str]) -> dict[str, str]:
    """A plain, unique name for every layer.

    >>> unique_names(["block.0", "block_0"])
    {'block.0': 'block_0', 'block_0': 'block_0_1'}
    """
    taken: dict[str, str] = {}
    for name in names:
        text, k = plain(name), 0
        while (unique := f"{text}_{k}" if k else text) in taken.values():
            k += 1
        taken[name] = unique
    return taken

"""Weight codes packed at their true width, and the C text that adds one row of them to the sums.

Codes stand row by row, one row per input (per input channel and kernel tap for a convolution), so that a spike adds
one row and silence costs nothing.  Fields of `width` bits follow each other, lowest bits of a byte first.  A field is
a two's complement code, or ``low + gain * field``, or an index into a table of levels: whatever the declared width
allows.  With a codebook each output has a table of its own, where that is smaller than the plain codes.  Where most
codes are zero, the rows hold only the others, with their positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spikequant.law.codebook import code_fields, level_table
from spikequant.law.formats import IntArray, signed_bits_for
from spikequant.readers.c.types import CType, holds

PADDING = 0.02
"""Rows start at a byte where this costs at most this share of the layer."""
SPARSE_GAIN = 0.95
"""The sparse form is taken where it is smaller than this share of the dense one."""


@dataclass(frozen=True, eq=False)
class Decode:
    """How a field becomes a code."""

    kind: str
    width: int
    low: int = 0
    gain: int = 1
    levels: tuple[int, ...] = ()

    @property
    def per_output(self) -> bool:
        """Whether every output has a table of levels of its own."""
        return self.kind == "codebook"

    def fields(self, codes: IntArray) -> IntArray:
        """The fields of some codes."""
        fields: IntArray = np.floor_divide(codes - self.low, self.gain)
        if self.kind == "twos":
            fields = np.bitwise_and(codes, 2**self.width - 1)
        if self.kind == "levels":
            fields = np.searchsorted(np.array(self.levels), codes).astype(np.int64)
        return fields


@dataclass(frozen=True, eq=False)
class Table:
    """A constant array of the program."""

    name: str
    ctype: CType
    values: IntArray
    layer: str
    role: str

    @property
    def bytes(self) -> int:
        """Its size in flash."""
        return self.ctype.bytes * self.values.size


@dataclass(frozen=True, eq=False)
class Packed:
    """The codes of one layer ``[rows, columns]`` as tables."""

    rows: int
    columns: int
    decode: Decode
    stride: int
    sparse: bool
    tables: tuple[Table, ...]

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(table.bytes for table in self.tables)

    @property
    def native(self) -> bool:
        """Whether the codes are elements of an ordinary integer array."""
        return self.decode.width in (8, 16) or self.decode.width > 16

    @property
    def aligned(self) -> bool:
        """Whether every row starts at a byte."""
        return self.stride > 0


def choose(codes: IntArray, bits: int) -> Decode:
    """How codes of a declared width are stored.

    >>> choose(np.array([-8, 7]), 4).kind, choose(np.array([-1, 1]), 1), choose(np.array([-9, 1, 8, 0]), 2).levels
    ('twos', Decode(kind='affine', width=1, low=-1, gain=2, levels=()), (-9, 0, 1, 8))
    """
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    if bits > 1 and signed_bits_for(low, high) <= bits:
        return Decode("twos", bits)
    gain = int(np.gcd.reduce((codes - low).reshape(-1))) if high > low else 1
    needed = max(1, ((high - low) // gain).bit_length())
    if needed <= bits:
        return Decode("affine", needed, low, gain)
    levels = np.unique(codes)
    if len(levels) <= 2**bits and bits < 16:
        return Decode("levels", bits, levels=tuple(int(v) for v in levels))
    if low >= 0:
        return Decode("affine", needed)
    return Decode("twos", signed_bits_for(low, high))


def pack(codes: IntArray, bits: int, name: str, layer: str) -> Packed:
    """The smaller of the dense and the sparse form of codes ``[rows, columns]``."""
    dense = _dense(codes, choose(codes, bits), name, layer)
    used = codes[codes != 0]
    if not 0 < used.size <= 0.6 * codes.size:
        return dense
    sparse = _sparse(codes, choose(used, bits), name, layer)
    return sparse if sparse.bytes < SPARSE_GAIN * dense.bytes else dense


def pack_codebook(codes: IntArray, codebook: IntArray, name: str, layer: str) -> Packed:
    """Codes ``[rows, columns]``, each column's from its own row of the codebook; plain where that is smaller."""
    bits = codebook.shape[1]
    fields = code_fields(codes.T, codebook)
    assert fields is not None  # a network is validated when it is made
    decode = Decode("codebook", bits)
    table = np.broadcast_to(level_table(codebook), (codes.shape[1], 2**bits)).reshape(-1)
    levels = Table(f"{name}_levels", holds(int(table.min()), int(table.max()), signed=True), table, layer, "weights")
    dense = _dense(codes, decode, name, layer, fields=fields.T)
    dense = replace(dense, tables=(*dense.tables, levels))
    plain = pack(codes, signed_bits_for(int(codes.min()), int(codes.max())), name, layer)
    return plain if plain.bytes <= dense.bytes else dense


def _dense(codes: IntArray, decode: Decode, name: str, layer: str, *, fields: IntArray | None = None) -> Packed:
    rows, columns = codes.shape
    row_bits = columns * decode.width
    aligned = (-row_bits) % 8 <= PADDING * row_bits or decode.width >= 16
    stride = -(-row_bits // 8) if aligned else 0
    fields = decode.fields(codes) if fields is None else fields
    data = _field_table(fields, decode, f"{name}_codes", layer, aligned)
    return Packed(rows, columns, decode, stride, False, (data, *_levels(decode, name, layer)))


def _sparse(codes: IntArray, decode: Decode, name: str, layer: str) -> Packed:
    rows, columns = codes.shape
    where, position = np.nonzero(codes)
    starts = np.concatenate([[0], np.cumsum(np.bincount(where, minlength=rows))]).astype(np.int64)
    fields = decode.fields(codes[where, position]).reshape(1, -1)
    data = _field_table(fields, decode, f"{name}_codes", layer, False)
    at = Table(f"{name}_columns", holds(0, columns - 1), position.astype(np.int64), layer, "weights")
    start = Table(f"{name}_starts", holds(0, len(where), least=16), starts, layer, "weights")
    return Packed(rows, columns, decode, 0, True, (data, at, start, *_levels(decode, name, layer)))


def _levels(decode: Decode, name: str, layer: str) -> list[Table]:
    if not decode.levels:
        return []
    values = np.array(decode.levels, dtype=np.int64)
    return [Table(f"{name}_levels", holds(int(values[0]), int(values[-1]), signed=True), values, layer, "weights")]


def _field_table(fields: IntArray, decode: Decode, name: str, layer: str, aligned: bool) -> Table:
    width, flat = decode.width, fields.reshape(-1)
    if width in (8, 16) or width > 16:
        ctype = CType(next(w for w in (8, 16, 32, 64) if width <= w), decode.kind == "twos")
        signed = np.where(flat >= 2 ** (width - 1), flat - 2**width, flat) if ctype.signed and width < 64 else flat
        return Table(name, ctype, signed, layer, "weights")
    data = pack_bits(fields, width) if aligned else pack_bits(fields.reshape(1, -1), width)
    tail = 0 if width in (1, 2, 4) else 1 if width <= 9 else 2  # a field may be read a little beyond the end
    return Table(name, CType(8, False), np.concatenate([data, np.zeros(tail, np.int64)]), layer, "weights")


def pack_bits(rows: IntArray, width: int) -> IntArray:
    """Bytes of fields of `width` bits, lowest bits first; every row begins a byte.

    >>> pack_bits(np.array([[1, 2, 3]]), 4).tolist()
    [33, 3]
    """
    bits = (rows[..., None] >> np.arange(width)) & 1
    packed = np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1, bitorder="little")
    return packed.reshape(-1).astype(np.int64)


def unpack_bits(data: IntArray, count: int, width: int) -> IntArray:
    """The first `count` fields of one row of `pack_bits`."""
    bits = np.unpackbits(data.astype(np.uint8), bitorder="little")[: count * width].reshape(count, width)
    values: IntArray = (bits.astype(np.int64) << np.arange(width)).sum(axis=1)
    return values

"""Values of an HDF5 file: datatypes, shapes, layouts, gzip.  Sizes are compared before memory is taken."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from spikequant.law.errors import DataError

UNDEFINED = 2**64 - 1
MOST_AXES = 32
MOST_TEXT = 2**24
DATASPACE, DATATYPE, EXTERNAL, LAYOUT, FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
DEFLATE, SHUFFLE = 1, 2
IEEE = {
    2: (0, 16, 10, 5, 0, 10, 15),
    4: (0, 32, 23, 8, 0, 23, 127),
    8: (0, 64, 52, 11, 0, 52, 1023),
}
"""Bit offset, precision, place and size of exponent and mantissa, bias, by size of a float."""


class Source(Protocol):
    """What is needed of the bytes of a file (`readers/nir_/hdf5.py`)."""

    content: bytes

    def cut(self, start: int, size: int) -> bytes:
        """Some bytes."""
        ...

    def number(self, start: int, size: int) -> int:
        """An unsigned number."""
        ...

    def step(self, count: int = 1) -> None:
        """Counts."""
        ...

    def expect(self, start: int, mark: bytes, what: str) -> None:
        """A signature."""
        ...


@dataclass(frozen=True)
class Type:
    """How one value is stored: a number of a numpy type, a text of fixed size, or a text in a heap (`dtype` None)."""

    size: int
    dtype: np.dtype[Any] | None = None
    is_text: bool = False


@dataclass(frozen=True)
class Layout:
    """Where the values are: at once (`at`, `size` bytes), or in chunks under a tree."""

    at: int
    size: int = 0
    chunk: tuple[int, ...] = ()
    filters: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Values of the file that are not read yet.

    Attributes:
        shape: None for an empty dataset.
        is_text: whether its values are texts.
    """

    source: Source
    heaps: GlobalHeaps
    shape: tuple[int, ...] | None
    type: Type
    layout: Layout

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return self.type.is_text

    @property
    def size(self) -> int:
        """How many values."""
        return 0 if self.shape is None else math.prod(self.shape)

    @property
    def volume(self) -> int:
        """How many values must be unpacked at once."""
        return max(self.size, math.prod(self.layout.chunk)) if self.layout.chunk else self.size

    def read(self) -> Any:
        """The values: an array of numbers or of texts as bytes; one of them for a scalar; None for an empty dataset."""
        if self.shape is None:
            return None
        raw = self._chunks() if self.layout.chunk else self._contiguous()
        if self.type.dtype is None:
            texts = [self.heaps.text(raw[16 * k : 16 * k + 16]) for k in range(self.size)]
            values: Any = np.empty(len(texts), dtype=object)
            values[:] = texts
        else:
            values = np.frombuffer(raw, dtype=self.type.dtype).astype(self.type.dtype.newbyteorder("="))
        values = values.reshape(self.shape)
        return values[()] if self.shape == () else values

    def _contiguous(self) -> bytes:
        wanted = self.size * self.type.size
        if wanted and self.layout.at == UNDEFINED:
            raise DataError("its values were never written")
        if self.layout.size != wanted:
            raise DataError(f"its values have {self.layout.size} bytes; its shape {self.shape} has {wanted}")
        return self.source.cut(self.layout.at, wanted) if wanted else b""

    def _chunks(self) -> bytes:
        shape, chunk, size = self.shape or (), self.layout.chunk, self.type.size
        if len(chunk) != len(shape):
            raise DataError(f"its chunks {chunk} have other axes than its shape {shape}")
        counts = [-(-n // c) for n, c in zip(shape, chunk, strict=True)]
        values = np.zeros((*shape, size), dtype=np.uint8)
        seen: set[tuple[int, ...]] = set()
        for start, raw in self._stored(len(chunk), math.prod(chunk) * size, math.prod(counts)):
            if start in seen or any(s % c or s >= n for s, c, n in zip(start, chunk, shape, strict=True)):
                raise DataError(f"a chunk at {start} of {shape}, which is not its place or there twice")
            seen.add(start)
            block = np.frombuffer(raw, dtype=np.uint8).reshape(*chunk, size)
            here = tuple(slice(s, min(s + c, n)) for s, c, n in zip(start, chunk, shape, strict=True))
            values[here] = block[tuple(slice(0, h.stop - h.start) for h in here)]
        if len(seen) != math.prod(counts):
            raise DataError(f"{len(seen)} of its {math.prod(counts)} chunks were written")
        return values.tobytes()

    def _stored(self, axes: int, size: int, most: int) -> Any:
        """Start and bytes of every chunk."""
        data, todo, seen = self.source, [(self.layout.at, -1)], set()
        if self.layout.at == UNDEFINED:
            return
        while todo:
            place, level = todo.pop(0)
            if place in seen:
                raise DataError(f"byte {place}: a tree that meets itself")
            seen.add(place)
            data.expect(place, b"TREE", "tree of chunks")
            kind, depth, used = data.number(place + 4, 1), data.number(place + 5, 1), data.number(place + 6, 2)
            if kind != 1 or (level >= 0 and depth != level - 1) or depth > 8:
                raise DataError(f"byte {place}: a tree of kind {kind} and level {depth} where chunks have their own")
            data.step(used)
            width = 8 + 8 * (axes + 1)
            for k in range(used):
                key = place + 24 + k * (width + 8)
                child = data.number(key + width, 8)
                if depth:
                    todo.append((child, depth))
                    continue
                if len(seen) > most + 64:
                    raise DataError(f"more chunks than the {most} of its shape")
                start = tuple(data.number(key + 8 + 8 * a, 8) for a in range(axes))
                packed = data.cut(child, data.number(key, 4))
                yield start, self._unpacked(packed, data.number(key + 4, 4), size)

    def _unpacked(self, packed: bytes, mask: int, size: int) -> bytes:
        for k, (name, width) in reversed(list(enumerate(self.layout.filters))):
            if mask >> k & 1:
                continue
            packed = _inflated(packed, size) if name == DEFLATE else _unshuffled(packed, width)
        if len(packed) != size:
            raise DataError(f"a chunk of {len(packed)} bytes; expected {size}")
        return packed


def _inflated(packed: bytes, size: int) -> bytes:
    machine = zlib.decompressobj()
    try:
        found = machine.decompress(packed, size + 1)
    except zlib.error as error:
        raise DataError(f"a chunk that is no gzip stream ({error})") from error
    if len(found) != size or not machine.eof:
        raise DataError(f"a chunk that does not unpack to {size} bytes")
    return found


def _unshuffled(packed: bytes, width: int) -> bytes:
    if width < 1 or len(packed) % width:
        raise DataError(f"a chunk of {len(packed)} bytes that were shuffled by {width}")
    return np.frombuffer(packed, dtype=np.uint8).reshape(width, -1).T.tobytes()


class GlobalHeaps:
    """Texts of any length, which lie in collections of the file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.known: dict[int, dict[int, bytes]] = {}
        self.taken = 0

    def text(self, reference: bytes) -> bytes:
        """The text that a stored reference (length, address, index) means."""
        length, address, index = (int.from_bytes(reference[a:b], "little") for a, b in ((0, 4), (4, 12), (12, 16)))
        if length == 0:
            return b""
        self.taken += length
        if self.taken > MOST_TEXT:  # many references to one text are a bomb
            raise DataError(f"its texts have more than {MOST_TEXT:,} bytes together")
        if address not in self.known:
            self.known[address] = self._collection(address)
        found = self.known[address].get(index)
        if found is None or length > len(found):
            raise DataError(f"byte {address}: a text that is not in its heap")
        return found[:length]

    def _collection(self, address: int) -> dict[int, bytes]:
        data = self.source
        data.expect(address, b"GCOL", "heap of texts")
        end, place = address + data.number(address + 8, 8), address + 16
        data.cut(address, end - address)
        found: dict[int, bytes] = {}
        while place + 16 <= end:
            data.step()
            index, size = data.number(place, 2), data.number(place + 8, 8)
            if index == 0:
                break
            found[index] = data.cut(place + 16, size)
            place += 16 + -(-size // 8) * 8
        return found


def read_dataset(source: Source, heaps: GlobalHeaps, messages: Sequence[tuple[int, int, int]]) -> Dataset:
    """The dataset that the messages of an object header describe.

    Raises:
        DataError: a message is missing, there twice, or of a form that graphs of NIR do not have.
    """
    found: dict[int, tuple[int, int]] = {}
    for kind, start, size in messages:
        if kind in (DATASPACE, DATATYPE, EXTERNAL, LAYOUT, FILTERS):
            if kind in found:
                raise DataError(f"byte {start}: a part of the header that is there twice")
            found[kind] = (start, size)
    if EXTERNAL in found:
        raise DataError("its values lie in another file; expected them in this one")
    for kind in (DATASPACE, LAYOUT):
        if kind not in found:
            raise DataError("values without a shape or a place")
    kind_of = _type(source, *found[DATATYPE])
    filters = _filters(source, *found[FILTERS]) if FILTERS in found else ()
    layout = _layout(source, found[LAYOUT][0], filters)
    if filters and not layout.chunk:
        raise DataError("packed values that are not in chunks")
    return Dataset(source, heaps, _shape(source, found[DATASPACE][0]), kind_of, layout)


def _shape(source: Source, start: int) -> tuple[int, ...] | None:
    version, axes = source.number(start, 1), source.number(start + 1, 1)
    if version not in (1, 2) or axes > MOST_AXES:
        raise DataError(f"a shape of version {version} with {axes} axes")
    if version == 2 and source.number(start + 3, 1) == 2:
        return None
    first = start + (8 if version == 1 else 4)
    return tuple(source.number(first + 8 * k, 8) for k in range(axes))


def _type(source: Source, start: int, length: int) -> Type:
    form, bits, size = source.number(start, 1), source.number(start + 1, 3), source.number(start + 4, 4)
    version, kind, order = form >> 4, form & 15, ">" if source.number(start + 1, 1) & 1 else "<"
    if version not in (1, 2, 3):
        raise DataError(f"a type of version {version}")
    makers: dict[int, Callable[[], Type]] = {
        0: lambda: _whole(source, start, size, bits, order),
        1: lambda: _real(source, start, size, bits, order),
        3: lambda: Type(size, np.dtype(f"S{size}") if size else None, True),
        8: lambda: _type(source, start + 8, length - 8),  # an enumeration, which h5py makes of booleans
        9: lambda: _text(size, bits),
    }
    if kind not in makers or (kind == 8 and length < 20):
        raise DataError(f"has a type of class {kind}; expected numbers or text")
    return makers[kind]()


def _text(size: int, bits: int) -> Type:
    if bits & 15 != 1 or size != 16:
        raise DataError("has lists of varying length; expected numbers or text")
    return Type(16, None, True)


def _whole(source: Source, start: int, size: int, bits: int, order: str) -> Type:
    if size not in (1, 2, 4, 8) or source.number(start + 8, 2) or source.number(start + 10, 2) != 8 * size:
        raise DataError(f"has whole numbers of an odd form ({size} bytes)")
    return Type(size, np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}"))


def _real(source: Source, start: int, size: int, bits: int, order: str) -> Type:
    widths = (2, 2, 1, 1, 1, 1, 4)
    places = [start + 8 + sum(widths[:k]) for k in range(7)]
    said = tuple(source.number(p, w) for p, w in zip(places, widths, strict=True))
    if IEEE.get(size) != said or bits & 0x40 or bits >> 8 & 0xFF != 8 * size - 1:
        raise DataError(f"has real numbers of an odd form ({size} bytes)")
    return Type(size, np.dtype(f"{order}f{size}"))


def _layout(source: Source, start: int, filters: tuple[tuple[int, int], ...]) -> Layout:
    version, kind = source.number(start, 1), source.number(start + 1, 1)
    if version == 4 and kind == 3:
        raise DataError("its values lie in another file; expected them in this one")
    if version != 3 or kind > 2:
        raise DataError(f"values laid out in version {version}, class {kind}; write the file with nir.write")
    if kind == 0:
        return Layout(start + 4, source.number(start + 2, 2))
    if kind == 1:
        return Layout(source.number(start + 2, 8), source.number(start + 10, 8))
    axes = source.number(start + 2, 1) - 1
    if not 1 <= axes <= MOST_AXES:
        raise DataError(f"chunks with {axes} axes")
    chunk = tuple(source.number(start + 11 + 4 * k, 4) for k in range(axes))
    if min(chunk) < 1:
        raise DataError(f"chunks of the shape {chunk}")
    return Layout(source.number(start + 3, 8), 0, chunk, filters)


def _filters(source: Source, start: int, length: int) -> tuple[tuple[int, int], ...]:
    version, count = source.number(start, 1), source.number(start + 1, 1)
    if version not in (1, 2) or count > 8:
        raise DataError(f"a list of {count} filters of version {version}")
    place, found = start + (8 if version == 1 else 2), []
    for _ in range(count):
        name, place = source.number(place, 2), place + 2
        named = version == 1 or name >= 256
        size, place = (source.number(place, 2), place + 2) if named else (0, place)
        values, place = source.number(place + 2, 2), place + 4
        place += -(-size // 8) * 8 if version == 1 else size
        width = source.number(place, 4) if values else 0
        place += 4 * values + (4 if version == 1 and values % 2 else 0)
        if name not in (DEFLATE, SHUFFLE):
            raise DataError(f"is packed by filter {name}; expected gzip")
        if place > start + length:
            raise DataError("a list of filters that is longer than its message")
        found.append((name, width))
    return tuple(found)

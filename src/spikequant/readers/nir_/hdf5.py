"""A strict reader of the part of HDF5 that NIR files use: groups, links, headers.  Values are in `hdf5_values.py`.

The library behind h5py hangs on some damaged files (18 of 6,000 that were changed at random), and what
hangs in C cannot be interrupted.  This reader looks only at bytes inside the file, visits no
place of a structure twice, and counts its steps, so it ends.  It reads the classic layout, which
h5py writes unless it is told otherwise.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", sections II.A, III and IV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from spikequant.law.errors import DataError
from spikequant.readers.nir_.hdf5_values import Dataset, GlobalHeaps, read_dataset

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 2**64 - 1
MOST_STEPS = 200_000
"""Headers, messages, entries and tree nodes of one file; 2,000 nodes of a graph need some 60,000."""
NEWER = "it has a newer layout of HDF5; write it with nir.write, or with h5py and libver='earliest'"
LINK_INFO, LINK, DATATYPE, CONTINUATION, SYMBOL_TABLE = 0x02, 0x06, 0x03, 0x10, 0x11


class Bytes:
    """The content of a file; every look outside of it raises."""

    def __init__(self, content: bytes) -> None:
        self.content, self.steps = content, 0

    def cut(self, start: int, size: int) -> bytes:
        """`size` bytes from `start` on."""
        if start < 0 or size < 0 or start + size > len(self.content):
            raise DataError(f"bytes {start} to {start + size} of a file of {len(self.content)}; is it cut off?")
        return self.content[start : start + size]

    def number(self, start: int, size: int) -> int:
        """An unsigned number, little-endian."""
        return int.from_bytes(self.cut(start, size), "little")

    def step(self, count: int = 1) -> None:
        """Counts; raises where a file wants more steps than any graph needs."""
        self.steps += count
        if self.steps > MOST_STEPS:
            raise DataError(f"it has more than {MOST_STEPS:,} parts; graphs of NIR are smaller")

    def expect(self, start: int, mark: bytes, what: str) -> None:
        """The signature of a structure."""
        self.step()
        if self.cut(start, len(mark)) != mark:
            raise DataError(f"byte {start}: no {what}")


@dataclass(frozen=True)
class Link:
    """Something that a group calls by name, but that is not in its place: soft, external or of another kind."""


@dataclass
class Group:
    """A group, known by the address of its header.

    Attributes:
        address: where its header is; two groups of one address are the same.
        members: addresses of the headers of what it holds by name, or a `Link`.
    """

    file: File
    address: int
    members: dict[str, int | Link]

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def get(self, name: str) -> Group | Dataset | Link | None:
        """The member of a name; None if there is none."""
        found = self.members.get(name)
        return found if found is None or isinstance(found, Link) else self.file.object(found)


@dataclass
class File:
    """An HDF5 file in memory."""

    content: bytes
    data: Bytes = field(init=False)

    def __post_init__(self) -> None:
        self.data = Bytes(self.content)
        self.heaps = GlobalHeaps(self.data)

    def root(self) -> Group:
        """The group that everything is in.

        Raises:
            DataError: no HDF5 file, a damaged one, or one of a newer layout.
        """
        data = self.data
        if data.cut(0, min(8, len(self.content))) != SIGNATURE:
            raise DataError("it does not begin as HDF5 does")
        version = data.number(8, 1)
        if version > 1:
            raise DataError(NEWER if version < 4 else f"superblock of version {version}")
        if (data.number(13, 1), data.number(14, 1)) != (8, 8):
            raise DataError("offsets and lengths have other sizes than 8 bytes")
        start = 24 if version == 0 else 28
        base, end = data.number(start, 8), data.number(start + 16, 8)
        if base != 0 or end != len(self.content):
            raise DataError(
                f"it says that it has {end} bytes from {base} on, and has {len(self.content)}; is it cut off?"
            )
        found = self.object(data.number(start + 40, 8))
        if not isinstance(found, Group):
            raise DataError("its root is no group")
        return found

    def object(self, address: int) -> Group | Dataset:
        """The group or dataset whose header is at `address`."""
        messages = list(self._messages(address))
        kinds = {kind for kind, _, _ in messages}
        if DATATYPE in kinds:
            return read_dataset(self.data, self.heaps, messages)
        members: dict[str, int | Link] = {}
        for kind, start, size in messages:
            if kind == SYMBOL_TABLE:
                self._symbols(self.data.number(start, 8), self.data.number(start + 8, 8), members)
            elif kind == LINK:
                self._link(start, size, members)
            elif kind == LINK_INFO:
                skip = 2 + (8 if self.data.number(start + 1, 1) & 1 else 0)
                if self.data.number(start + skip, 8) != UNDEFINED:
                    raise DataError(NEWER)
        if not kinds & {SYMBOL_TABLE, LINK_INFO}:
            raise DataError(f"byte {address}: neither a group nor values")
        return Group(self, address, members)

    def _messages(self, address: int) -> Iterator[tuple[int, int, int]]:
        """Type, first byte and size of the messages of an object header."""
        data = self.data
        if data.cut(address, 4) == b"OHDR":
            raise DataError(NEWER)
        if data.number(address, 1) != 1:
            raise DataError(f"byte {address}: no object header")
        left = data.number(address + 2, 2)
        blocks, seen = [(address + 16, data.number(address + 8, 4))], set()
        while blocks and left:
            place, size = blocks.pop(0)
            if place in seen:
                raise DataError(f"byte {place}: a header that continues in itself")
            seen.add(place)
            end = place + size
            while place + 8 <= end and left:
                data.step()
                kind, length, flags = data.number(place, 2), data.number(place + 2, 2), data.number(place + 4, 1)
                if place + 8 + length > end:
                    raise DataError(f"byte {place}: a message that is longer than its header")
                if flags & 2 and kind:
                    raise DataError(f"byte {place}: a shared message, which graphs of NIR do not have")
                if kind == CONTINUATION:
                    blocks.append((data.number(place + 8, 8), data.number(place + 16, 8)))
                yield kind, place + 8, length
                place, left = place + 8 + length, left - 1

    # -- groups ------------------------------------------------------------------------

    def _add(self, members: dict[str, int | Link], raw: bytes, value: int | Link) -> None:
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"a name that is no UTF-8: {raw[:40]!r}") from error
        if not name or "/" in name or name in members:
            raise DataError(f"the name {name[:40]!r} is empty, a path, or there twice")
        members[name] = value

    def _symbols(self, tree: int, heap: int, members: dict[str, int | Link]) -> None:
        """Members of a group of the classic form: a tree of tables of symbols, names in a heap."""
        data = self.data
        data.expect(heap, b"HEAP", "heap of names")
        size, start = data.number(heap + 8, 8), data.number(heap + 24, 8)
        names = data.cut(start, size)
        todo, seen = [(tree, -1)], set()
        while todo:
            place, level = todo.pop(0)
            if place in seen:
                raise DataError(f"byte {place}: a tree that meets itself")
            seen.add(place)
            if level == 0:
                self._symbol_table(place, names, members)
                continue
            data.expect(place, b"TREE", "tree of a group")
            kind, depth, used = data.number(place + 4, 1), data.number(place + 5, 1), data.number(place + 6, 2)
            if kind != 0 or (level >= 0 and depth != level - 1) or depth > 8:
                raise DataError(f"byte {place}: a tree of kind {kind} and level {depth} where a group has its own")
            todo += [(data.number(place + 32 + 16 * k, 8), depth) for k in range(used)]
            data.step(used)

    def _symbol_table(self, place: int, names: bytes, members: dict[str, int | Link]) -> None:
        data = self.data
        data.expect(place, b"SNOD", "table of symbols")
        for k in range(data.number(place + 6, 2)):
            data.step()
            entry = place + 8 + 40 * k
            offset, cached = data.number(entry, 8), data.number(entry + 16, 4)
            end = names.find(b"\0", offset)
            if offset >= len(names) or end < 0:
                raise DataError(f"byte {entry}: a name that is not in the heap of its group")
            self._add(members, names[offset:end], Link() if cached == 2 else data.number(entry + 8, 8))

    def _link(self, start: int, size: int, members: dict[str, int | Link]) -> None:
        """A member of a group that keeps its links in its header."""
        data, end = self.data, start + size
        flags, place = data.number(start + 1, 1), start + 2
        kind = 0
        if flags & 8:
            kind, place = data.number(place, 1), place + 1
        place += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        length, place = data.number(place, width), place + width
        if place + length > end:
            raise DataError(f"byte {start}: a link whose name is longer than itself")
        self._add(members, data.cut(place, length), data.number(place + length, 8) if kind == 0 else Link())

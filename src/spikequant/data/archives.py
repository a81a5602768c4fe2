"""Tar archives (gzip or xz) read member by member, nothing written to disk."""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from spikequant.law.errors import DataError

LARGEST_MEMBER = 1 << 28


def tar_members(
    path: Path, wanted: str, *, largest: int = LARGEST_MEMBER, largest_total: int = 4 << 30
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member whose whole name matches the expression `wanted`.

    A member's announced size is compared with `largest` before anything is read.

    Raises:
        DataError: not a tar archive, truncated, a member that matches and is no plain file,
            too large or there twice, or more than `largest_total` bytes together.
    """
    pattern, seen, total = re.compile(wanted), set[str](), 0
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if not pattern.fullmatch(name):
                    continue
                total += member.size
                _check_member(path, member, largest, again=name in seen, all_bytes=(total, largest_total))
                seen.add(name)
                file = archive.extractfile(member)
                content = file.read() if file is not None else b""
                if len(content) != member.size:
                    raise DataError(f"{path}: {name} is cut off after {len(content)} of {member.size} bytes")
                yield name, content
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise DataError(f"{path}: not a whole tar archive ({error}); fetch it again") from error


def _check_member(
    path: Path, member: tarfile.TarInfo, largest: int, *, again: bool, all_bytes: tuple[int, int]
) -> None:
    if again:
        raise DataError(f"{path}: {member.name} is there twice; expected each file once")
    if not member.isreg() or member.issparse():
        raise DataError(f"{path}: {member.name} is not a plain file; only plain files are read")
    if member.size > largest:
        raise DataError(f"{path}: {member.name} announces {member.size} bytes, expected at most {largest}")
    total, largest_total = all_bytes
    if total > largest_total:
        raise DataError(f"{path}: its files announce more than {largest_total} bytes together; this is another archive")

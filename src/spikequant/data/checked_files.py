"""Files read with a limit on their size and against a published checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path

from spikequant.law.errors import DataError

LARGEST_FILE = 2 << 30
"""No file of the data sets that are read whole is larger than 2 GiB."""


def read_file(path: Path, *, md5: str | None = None, sha256: str | None = None, largest: int = LARGEST_FILE) -> bytes:
    """All bytes of `path`, which must have the checksums that are given.

    A checksum names a published file; MD5 is no protection against an attacker.

    Raises:
        DataError: no such file, more than `largest` bytes, or another checksum.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            raise DataError(f"{path}: {size} bytes; expected at most {largest}, so this is another file")
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    check_sum(content, path, md5=md5, sha256=sha256)
    return content


def check_file(path: Path, *, md5: str | None = None, sha256: str | None = None) -> None:
    """As `read_file`, but reads in pieces and keeps nothing: for archives."""
    for kind, expected in (("md5", md5), ("sha256", sha256)):
        if expected is None:
            continue
        digest, size = hashlib.new(kind, usedforsecurity=False), 0
        try:
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
                    size += len(piece)
        except OSError as error:
            raise _unreadable(path, error) from error
        _compare(path, kind, digest.hexdigest(), expected, size)


def check_sum(content: bytes, where: Path | str, *, md5: str | None = None, sha256: str | None = None) -> None:
    """Raise `DataError` unless `content` has the checksums that are given."""
    for kind, expected in (("md5", md5), ("sha256", sha256)):
        if expected is not None:
            found = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
            _compare(where, kind, found, expected, len(content))


def _compare(where: Path | str, kind: str, found: str, expected: str, size: int) -> None:
    if found != expected:
        title = {"md5": "MD5", "sha256": "SHA-256"}[kind]
        raise DataError(
            f"{where}: {title} is {found}, the published file has {expected} "
            f"({size} bytes here); the file is damaged or another one, fetch it again"
        )


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}); docs/data.md lists the files that are expected")

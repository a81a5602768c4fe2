"""A strict reader of idx, the file format of MNIST, plain or in gzip.

An idx file is two zero bytes, a type byte (8: uint8), a byte with the number of axes, the
sizes of the axes as big-endian 32-bit integers, and then the values, last axis fastest.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import io
import zlib
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spikequant.data.checked_files import check_sum, read_file
from spikequant.law.errors import DataError

_UINT8 = 8
_GZIP = b"\x1f\x8b"
LARGEST_ARRAY = 1 << 28
"""No idx file of the data sets that are read here holds more than 2^28 values."""


def read_idx(path: Path | str, *, md5: str | None = None, sha256: str | None = None) -> npt.NDArray[np.uint8]:
    """The uint8 array of an idx file, plain or gzip-compressed.

    With `md5`, the file as it lies there must have exactly that MD5; with `sha256`, its
    unpacked content must have that SHA-256.  They name the published file, MD5 is no
    protection against an attacker.  The header is read before the values: a file that
    claims more values than it holds costs no memory.

    Raises:
        DataError: no such file, another checksum, not gzip, truncated, not idx, a value type
            other than uint8, or more or fewer values than the header says.
    """
    path = Path(path)
    packed = read_file(path, md5=md5)
    try:
        is_packed = path.suffix == ".gz" or packed[:2] == _GZIP
        raw = _unpack(packed, path) if is_packed else packed
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    check_sum(raw, f"{path} (unpacked)", sha256=sha256)
    return _parse(raw, path)


def _unpack(packed: bytes, path: Path) -> bytes:
    """The unpacked content, but no more than one byte beyond what its header announces."""
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        start = file.read(4)
        if len(start) < 4:
            return start
        start += file.read(4 * start[3])
        shape = _shape(start, path)
        return start + file.read(prod(shape) + 1)


def _parse(raw: bytes, path: Path) -> npt.NDArray[np.uint8]:
    shape = _shape(raw, path)
    header = 4 + 4 * len(shape)
    if len(raw) - header != prod(shape):
        more = "more" if len(raw) - header > prod(shape) else "fewer"
        raise DataError(
            f"{path}: the header says {' x '.join(map(str, shape))} = {prod(shape)} values, "
            f"the file holds {more} ({len(raw) - header} were read); fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _shape(raw: bytes, path: Path) -> tuple[int, ...]:
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise DataError(f"{path}: an idx file starts with two zero bytes, this one with {raw[:4].hex() or 'nothing'}")
    value_type, axes = raw[2], raw[3]
    if value_type != _UINT8:
        raise DataError(f"{path}: values of idx type 0x{value_type:02x}; only uint8 (0x08) is read")
    header = 4 + 4 * axes
    if axes == 0 or len(raw) < header:
        raise DataError(f"{path}: the idx header of {axes} axes is incomplete ({len(raw)} bytes)")
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, header, 4))
    if prod(shape) > LARGEST_ARRAY:
        raise DataError(f"{path}: the header announces {prod(shape)} values, expected at most {LARGEST_ARRAY}")
    return shape

"""A strict reader of idx.gz, the file format of MNIST.

An idx file is two zero bytes, a type byte (8: uint8), a byte with the number of axes, the
sizes of the axes as big-endian 32-bit integers, and then the values, last axis fastest.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

_UINT8 = 8


def read_idx(path: Path | str, *, md5: str | None = None) -> npt.NDArray[np.uint8]:
    """The uint8 array of a gzip-compressed idx file.

    With `md5`, the compressed file must have exactly that MD5: it names the published file,
    it is no protection against an attacker.

    Raises:
        DataError: no such file, another MD5, not gzip, truncated, not idx, a value type
            other than uint8, or more or fewer values than the header says.
    """
    path = Path(path)
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected an idx.gz file") from error
    if md5 is not None and (found := hashlib.md5(packed, usedforsecurity=False).hexdigest()) != md5:
        raise DataError(
            f"{path}: MD5 is {found}, the published file has {md5} "
            f"({len(packed)} bytes here); the file is damaged or another one, fetch it again"
        )
    try:
        raw = gzip.decompress(packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    return _parse(raw, path)


def _parse(raw: bytes, path: Path) -> npt.NDArray[np.uint8]:
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise DataError(f"{path}: an idx file starts with two zero bytes, this one with {raw[:4].hex() or 'nothing'}")
    value_type, axes = raw[2], raw[3]
    if value_type != _UINT8:
        raise DataError(f"{path}: values of idx type 0x{value_type:02x}; only uint8 (0x08) is read")
    header = 4 + 4 * axes
    if axes == 0 or len(raw) < header:
        raise DataError(f"{path}: the idx header of {axes} axes is incomplete ({len(raw)} bytes)")
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, header, 4))
    if len(raw) - header != prod(shape):
        raise DataError(
            f"{path}: the header says {' x '.join(map(str, shape))} = {prod(shape)} values, "
            f"the file holds {len(raw) - header}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)

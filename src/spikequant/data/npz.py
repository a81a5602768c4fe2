"""A strict reader of .npz files: known fields, known types, sizes compared before anything is read."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from spikequant.data.checked_files import check_file
from spikequant.law.errors import DataError

Arrays = dict[str, npt.NDArray[Any]]


def read_npz(
    path: Path, fields: dict[str, tuple[str, int]], *, sha256: str | None = None, largest: int = 1 << 30
) -> Arrays:
    """The arrays of an .npz file, each of the kind that `fields` gives as (type, number of axes).

    A type is numpy's name such as ``uint8``, or ``str`` for text of any length.  The header of
    an array is read and compared first: one that announces more than `largest` bytes, or more
    than its file holds, is refused before memory is taken.  Pickled objects are refused.

    Raises:
        DataError: no such file, another checksum, not an npz file, damaged, a field missing or
            unknown, or of another type or number of axes.
    """
    check_file(path, sha256=sha256)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if members.keys() != fields.keys():
                raise DataError(f"{path}: holds {', '.join(sorted(members))}; expected {', '.join(sorted(fields))}")
            arrays = {}
            for name, kind in fields.items():
                with archive.open(members[name]) as file:
                    arrays[name] = _read_array(file, members[name].file_size, f"{path}: {name}", kind, largest)
            return arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise DataError(f"{path}: not a whole npz file ({error}); fetch it again") from error


def _read_array(file: IO[bytes], size: int, where: str, kind: tuple[str, int], largest: int) -> npt.NDArray[Any]:
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_columns, dtype = read_header[version](file)
    except (ValueError, KeyError) as error:
        raise DataError(f"{where}: no array header of numpy ({error}); fetch the file again") from error
    expected, axes = kind
    right_type = dtype.kind == "U" if expected == "str" else dtype == np.dtype(expected)
    if not right_type or len(shape) != axes or by_columns:
        raise DataError(f"{where}: {dtype} of shape {list(shape)}; expected {expected} with {axes} axes")
    announced = prod(shape) * dtype.itemsize
    if announced > min(largest, size):
        raise DataError(
            f"{where}: the header announces {announced} bytes, the file holds {size}, at most {largest} are read"
        )
    content = file.read(announced)
    if len(content) != announced or file.read(1):
        raise DataError(
            f"{where}: the header announces {announced} bytes, the file holds more or fewer; fetch it again"
        )
    return np.frombuffer(content, dtype).reshape(shape)

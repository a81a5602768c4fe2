"""CIFAR-10 as lossless WebP sheets: tiles of 32 x 32, 100 to a row, in the order of the batches."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.data.checked_files import check_file
from spikequant.law.errors import DataError

TILE, TILES_A_ROW = 32, 100


def read_sheet(path: Path, tiles: int, *, sha256: str | None = None) -> npt.NDArray[np.uint8]:
    """The `tiles` images of a sheet, ``[tiles, 3, 32, 32]``.

    The size of the picture is compared before it is decoded.

    Raises:
        DataError: Pillow is not installed or has no WebP, another checksum, not a picture in
            WebP, another size, or damaged.
    """
    image_library = _pillow(path)
    check_file(path, sha256=sha256)
    expected = (TILE * TILES_A_ROW, TILE * -(-tiles // TILES_A_ROW))
    try:
        with image_library.open(path, formats=("WEBP",)) as picture:
            if picture.size != expected:
                raise DataError(
                    f"{path}: {picture.size[0]} x {picture.size[1]} pixels, expected {expected[0]} x {expected[1]}"
                )
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, KeyError, image_library.DecompressionBombError) as error:
        raise DataError(f"{path}: not a whole WebP picture ({error}); fetch it again") from error
    by_tile = pixels.reshape(-1, TILE, TILES_A_ROW, TILE, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(by_tile).reshape(-1, 3, TILE, TILE)[:tiles]


def _pillow(path: Path) -> Any:
    try:
        image_library, features = import_module("PIL.Image"), import_module("PIL.features")
    except ImportError as error:
        raise DataError(f"{path}: reading WebP sheets needs Pillow; install it with: pip install pillow") from error
    if not features.check("webp"):
        raise DataError(f"{path}: this Pillow has no WebP; install another one, or use the published archive")
    return image_library

"""The data that a command works on: a data set by name, its splits as batches, and what is written down about them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikequant.law.errors import DataError

if TYPE_CHECKING:
    from spikequant.data import ArrayBatches, ImageData

DATA_NAMES = ("digits", "mnist", "fashion-mnist")
PIXEL_SCALES = {"digits": 1 / 16}
TEST_BATCH = 250


@dataclass(frozen=True, kw_only=True)
class ShellData:
    """Batches of one data set.  `record` names the data, the split and the number of samples."""

    train: ArrayBatches
    test: ArrayBatches
    classes: int
    record: dict[str, Any]

    def __str__(self) -> str:
        r = self.record
        return f"{r['name']}: {r['train']:,} samples to train on, {r['test']:,} to test on, {self.classes} classes"


def open_data(name: str, folder: Path | None, *, batch_size: int, seed: int, limit: int | None) -> ShellData:
    """Load a data set; with `limit`, that many training samples and as many test samples at most.

    The samples that a limit leaves are spread evenly over the split, which takes every class
    also where a file is sorted by class.

    Raises:
        DataError: unknown name, or the files are not there.
    """
    data = _loaded(name, folder)
    kept = [_spread(len(split), limit) for split in (data.train, data.test)]
    scale = PIXEL_SCALES.get(name, 1 / 255)
    from spikequant.data import ArrayBatches

    train = ArrayBatches(
        data.train.x[kept[0]], data.train.y[kept[0]], batch_size=batch_size, shuffle=True, seed=seed, scale=scale
    )
    test = ArrayBatches(data.test.x[kept[1]], data.test.y[kept[1]], batch_size=TEST_BATCH, scale=scale)
    record = {
        "name": name,
        "folder": None if folder is None else str(folder),
        "train": train.samples,
        "test": test.samples,
        "limit": limit,
        "scale": scale,
    }
    return ShellData(train=train, test=test, classes=data.classes, record=record)


def complete_data(incomplete: str) -> Iterable[str]:
    """Names of data sets for tab completion."""
    return [name for name in DATA_NAMES if name.startswith(incomplete)]


def _loaded(name: str, folder: Path | None) -> ImageData:
    if name not in DATA_NAMES:
        near = difflib.get_close_matches(name, DATA_NAMES, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(f"--data {name}: no such data set; there are {', '.join(DATA_NAMES)}.{hint}")
    if folder is not None and not folder.is_dir():
        raise DataError(f"--data-dir {folder} is not a folder; give the one that holds {name}/")
    from spikequant import data

    if name == "digits":
        return data.load_digits()
    return data.load_mnist(folder) if name == "mnist" else data.load_fashion_mnist(folder)


def _spread(count: int, limit: int | None) -> Any:
    import numpy as np

    if limit is None or limit >= count:
        return np.arange(count)
    return np.arange(limit) * count // limit

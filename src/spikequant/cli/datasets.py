"""The data that a command works on: a data set by name, its splits as batches, and what is written down about them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikequant.data import EVENTS, IMAGES, Augment, Batches, DataSet, Split, load, names
from spikequant.law.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

TEST_BATCH = 200
TAKEN = ("fold", "steps", "step_ms", "window_ms", "counts")
"""Options of a data set itself, under their names in `DataChoice` and `spikequant.data.load`."""


@dataclass(frozen=True, kw_only=True)
class DataChoice:
    """What the options of the group Data say; None means: as the data set documents it."""

    name: str | None = None
    folder: Path | None = None
    limit: int | None = None
    fold: int | None = None
    steps: int | None = None
    step_ms: float | None = None
    window_ms: float | None = None
    counts: bool | None = None
    download: bool = False
    augment: bool = False


@dataclass(frozen=True, kw_only=True)
class ShellData:
    """Batches of one data set.

    `train` is shuffled; `validation` (None where the data set has no such split) is what
    decisions are made on, `test` what is reported.  `record` names the data, its splits and
    the number of samples in each.
    """

    train: Batches
    validation: Batches | None
    test: Batches
    classes: int
    sample_axis: int
    record: dict[str, Any]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {count:,}" for name, count in self.record["samples"].items())
        return f"{self.record['name']}: {self.classes} classes, samples: {parts}"

    def first(self, samples: int) -> Tensor:
        """The first test inputs, at most one batch of them."""
        x, y = next(iter(self.test))
        return x.narrow(self.sample_axis, 0, min(samples, len(y)))


def open_data(choice: DataChoice, *, batch_size: int, seed: int) -> ShellData:
    """Load a data set; with a limit, at most that many samples of every split.

    The samples that a limit leaves are spread evenly over the split, which takes every class
    also where a file is sorted by class.

    Raises:
        DataError: no name or an unknown one, an option that this data set does not take, or
            files that are not there.
    """
    data = _loaded(choice)
    if not {"train", "test"} <= set(data.splits):
        raise DataError(f"{data.name} has the splits {', '.join(data.splits)}; expected train and test among them")
    found = {
        name: _batches(
            data,
            name,
            choice.limit,
            batch_size=batch_size,
            seed=seed,
            augment=_augmentation(data) if choice.augment and name == "train" else None,
        )
        for name in ("train", "validation", "test")
        if name in data.splits
    }
    options = {name: getattr(choice, name) for name in ("limit", *TAKEN)}
    record = {
        "name": data.name,
        "folder": None if choice.folder is None else str(choice.folder.resolve()),
        "samples": {name: batches.samples for name, batches in found.items()},
        "input": str(data).splitlines()[0],
        **options,
        **({"augment": True} if choice.augment else {}),
    }
    return ShellData(
        train=found["train"],
        validation=found.get("validation"),
        test=found["test"],
        classes=data.classes,
        sample_axis=data.batch_axis,
        record=record,
    )


def complete_data(incomplete: str) -> Iterable[tuple[str, str]]:
    """Names of data sets, with a line on each, for tab completion."""
    return [(name, title) for name, title in names().items() if name.startswith(incomplete)]


def _loaded(choice: DataChoice) -> DataSet:
    if choice.name is None:
        raise DataError(f"no data set was named; add --data NAME, one of {', '.join(names())}")
    if choice.name not in names():
        near = difflib.get_close_matches(choice.name, names(), 1)
        hint = f". Did you mean {near[0]}?" if near else ""
        raise DataError(f"--data {choice.name}: no such data set; there are {', '.join(names())}{hint}")
    if choice.folder is not None and not choice.folder.is_dir() and choice.name != "digits":
        raise DataError(
            f"the data folder {choice.folder} does not exist; give --data-dir (or SPIKEQUANT_DATA) the folder that "
            f"holds {choice.name}/"
        )
    folder = None if choice.folder is not None and not choice.folder.is_dir() else choice.folder
    return load(
        choice.name,
        folder=folder,
        fold=choice.fold,
        steps=choice.steps,
        step_ms=choice.step_ms,
        window_ms=choice.window_ms,
        counts=choice.counts,
        download=choice.download,
    )


def _augmentation(data: DataSet) -> Augment:
    """What is usual for images, or for frames of events.

    Raises:
        DataError: samples that are neither.
    """
    if data.layout == "TNC":
        raise DataError(f"--augment: {data.name} has samples without rows and columns; leave it out")
    return EVENTS if data.layout == "TNCHW" else IMAGES


def _batches(
    data: DataSet, name: str, limit: int | None, *, batch_size: int, seed: int, augment: Augment | None
) -> Batches:
    split = data.split(name)
    if limit is not None and limit < len(split):
        split = Split(split.source, split.indices[np.arange(limit) * len(split) // limit])
    training = name == "train"
    return Batches(
        split,
        batch_axis=data.batch_axis,
        batch_size=batch_size if training else TEST_BATCH,
        shuffle=training,
        seed=seed,
        scale=data.scale,
        augment=augment,
    )

"""Spiking Heidelberg Digits: 700 channels, 20 classes, bit-packed until batched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from spikequant.data.dataset import DataSet, Split
from spikequant.data.folds import fold_splits
from spikequant.data.npz import read_npz
from spikequant.data.places import Form, Places
from spikequant.data.shd_hdf5 import CHANNELS, PACKED_BYTES, read_shd_hdf5
from spikequant.data.splits import held_out
from spikequant.law.errors import DataError

CLASSES = 20
TEST_SAMPLES, TRAIN_SAMPLES = 2264, 8156
PACKED_FILE = "shd_test_10ms.npz"
PACKED_SHA256 = "ec1535052502fd7cbf6420cc866e2c00040a29fcb4cabedfe3a76cd5a56d148c"
PACKED_STEPS, PACKED_STEP_MS = 100, 10.0
_FOLDERS = ("shd", "SHD", "hsd")
_PACKED = Form("the test set, bit-packed at 10 ms", (PACKED_FILE,))
_HOW = (
    "The HDF5 files are published at zenkelab.org/datasets (unpack the .gz or .zip); with a network, download=True "
    "(at the shell --download) fetches them by the library tonic."
)
FOLD_PLACES = Places("shd", _FOLDERS, (_PACKED, Form("the published test set", ("shd_test.h5",))), _HOW)
PUBLISHED_PLACES = Places(
    "shd-train-test", _FOLDERS, (Form("the published HDF5 files", ("shd_train.h5", "shd_test.h5")),), _HOW
)
CLASS_NAMES = tuple(map(str, range(CLASSES)))
"""The files number their classes; which number is which spoken digit is in ``extra/keys`` of the HDF5 files."""


@final
@dataclass(frozen=True, eq=False)
class PackedSpikes:
    """Spikes as bits: ``packed [samples, T, 88]`` uint8, the first bit of a byte first, 700 bits used.

    Raises:
        DataError: another shape, a bit set behind channel 699, or labels that do not fit.
    """

    packed: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.packed.ndim != 3 or self.packed.shape[2] != PACKED_BYTES or len(self.packed) != len(self.labels):
            raise DataError(
                f"packed spikes are [samples, T, {PACKED_BYTES}] with a label for each sample; "
                f"got {list(self.packed.shape)} and {len(self.labels)} labels"
            )
        if (self.packed[..., -1] & (0xFF >> CHANNELS % 8)).any():
            raise DataError(f"packed spikes use {CHANNELS} bits of {8 * PACKED_BYTES}; a bit behind them is set")

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Spikes ``[T, n, 700]`` of these samples, 0 or 1."""
        by_step = np.ascontiguousarray(self.packed[indices].swapaxes(0, 1))
        return np.unpackbits(by_step, axis=2, count=CHANNELS)


def read_packed_shd(path: Path, *, sha256: str | None = None) -> PackedSpikes:
    """The samples of a bit-packed file.

    Raises:
        DataError: another checksum or layout, or a label that is no class.
    """
    arrays = read_npz(path, {"spikes": ("uint8", 3), "labels": ("uint8", 1)}, sha256=sha256)
    labels = arrays["labels"].astype(np.int64)
    if len(labels) == 0 or int(labels.max()) >= CLASSES:
        raise DataError(f"{path}: labels go up to {labels.max(initial=-1)}, expected 0 to {CLASSES - 1}")
    return PackedSpikes(arrays["spikes"], labels)


def load_shd(
    folder: Path | str | None = None, *, fold: int = 0, steps: int | None = None, step_ms: float | None = None
) -> DataSet:
    """SHD, the 2,264 samples of the published test set, in five folds.

    Fold `fold` is the test set, the next one (cyclically) validation, the other three are for
    training; folds are ``stratified_folds("shd", labels)``.  Speakers are not kept apart.  A
    number on these folds is not comparable with one on the published split; that is
    `load_shd_train_test`.

    Layout ``[T, N, 700]``, 0 or 1; by default 100 steps of 10 ms.  The bit-packed file has
    steps of 10 ms only; `steps` takes the first ones.  From ``shd_test.h5`` the spikes are
    binned as that file was (see `shd_hdf5`), which could not be compared bit by bit.

    Source: B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg spiking data sets
    for the systematic evaluation of spiking neural networks", IEEE TNNLS, 2020.  CC BY 4.0.

    Raises:
        DataError: files are not there or other ones, no such fold, or steps the file does not
            have.
    """
    found, form = FOLD_PLACES.find(folder)
    if form is _PACKED:
        spikes = _first_steps(read_packed_shd(found / PACKED_FILE, sha256=PACKED_SHA256), steps, step_ms)
        notes = (f"fold {fold} of 5 over the published test set",)
    else:
        spikes = _read(found / "shd_test.h5", TEST_SAMPLES, steps, step_ms, last_step_empty=True)
        notes = (f"fold {fold} of 5 over the published test set, binned here from its HDF5 file",)
    return _data_set("shd", spikes, fold_splits("shd", spikes, fold), step_ms, notes)


def load_shd_train_test(
    folder: Path | str | None = None, *, steps: int | None = None, step_ms: float | None = None
) -> DataSet:
    """SHD with its published training set (8,156) and test set (2,264), from the HDF5 files.

    A tenth of the training set is held out as validation by
    ``held_out("shd-validation", labels, 815)``.  Layout ``[T, N, 700]``, 0 or 1; by default
    100 steps of 10 ms, spikes after them are left out.  Source as in `load_shd`.

    Raises:
        DataError: h5py is not installed, files are not there, damaged, or of other sizes.
    """
    found, _ = PUBLISHED_PLACES.find(folder)
    train = _read(found / "shd_train.h5", TRAIN_SAMPLES, steps, step_ms)
    test = _read(found / "shd_test.h5", TEST_SAMPLES, steps, step_ms)
    is_validation = held_out("shd-validation", train.labels, len(train.labels) // 10)
    splits = {
        "train": Split(train, np.flatnonzero(~is_validation)),
        "validation": Split(train, np.flatnonzero(is_validation)),
        "test": Split(test, np.arange(len(test.labels))),
    }
    return _data_set("shd-train-test", train, splits, step_ms, ())


def _data_set(
    name: str, spikes: PackedSpikes, splits: dict[str, Split], step_ms: float | None, notes: tuple[str, ...]
) -> DataSet:
    return DataSet(
        name=name,
        splits=splits,
        class_names=CLASS_NAMES,
        sample_shape=(CHANNELS,),
        layout="TNC",
        scale=1.0,
        steps=spikes.packed.shape[1],
        step_ms=PACKED_STEP_MS if step_ms is None else step_ms,
        notes=notes,
    )


def _first_steps(spikes: PackedSpikes, steps: int | None, step_ms: float | None) -> PackedSpikes:
    if step_ms not in (None, PACKED_STEP_MS):
        raise DataError(f"shd: {PACKED_FILE} has steps of 10 ms, got step_ms={step_ms}; other steps need shd_test.h5")
    count = spikes.packed.shape[1]
    if steps is not None and not 1 <= steps <= count:
        raise DataError(f"shd: {PACKED_FILE} has {count} steps, got steps={steps}")
    return PackedSpikes(spikes.packed[:, :steps], spikes.labels)


def _read(
    path: Path, samples: int, steps: int | None, step_ms: float | None, *, last_step_empty: bool = False
) -> PackedSpikes:
    length = PACKED_STEP_MS if step_ms is None else step_ms
    count = steps if steps is not None else round(PACKED_STEPS * PACKED_STEP_MS / length) if length > 0 else 0
    packed, labels = read_shd_hdf5(path, steps=count, step_ms=length, classes=CLASSES)
    if len(labels) != samples:
        raise DataError(f"{path}: {len(labels)} samples, the published file has {samples}")
    if last_step_empty and steps is None and step_ms is None:
        packed[:, -1] = 0  # the bit-packed file ends one step earlier
    return PackedSpikes(packed, labels)

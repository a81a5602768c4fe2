"""N-MNIST, 4,000 samples of it as sparse 1 ms frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from spikequant.data.dataset import DataSet
from spikequant.data.folds import fold_splits
from spikequant.data.frames import FrameSource, choose_steps
from spikequant.data.npz import Arrays, read_npz
from spikequant.data.places import Form, Places
from spikequant.law.errors import DataError

SIDE = 34
SHAPE = (2, SIDE, SIDE)
WINDOW_US = 340_000
"""No recording at hand is longer: the longest ends at 336.04 ms."""

FRAMES_FILE = "nmnist_1ms_8class.npz"
FRAMES_SHA256 = "a1f2aaa24fd2c87043e6fc32beb7b055040ee4a4aa999a88face3ce851a852f7"
FOLDERS = ("n-mnist", "NMNIST", "N-MNIST")
FRAMES_PLACES = Places(
    "n-mnist",
    FOLDERS,
    (Form("4,000 samples as sparse 1 ms frames", (FRAMES_FILE,)),),
    "Nobody offers this file for download; the published event files are the data set n-mnist-raw.",
)
_BITS_OF_BIN = 9
_FIELDS = {
    "lo": ("uint8", 1),
    "hi": ("uint16", 1),
    "offsets": ("int64", 1),
    "labels": ("uint8", 1),
    "n_bins": ("uint16", 1),
    "is_test": ("uint8", 1),
    "source_index": ("uint16", 1),
}


@final
@dataclass(frozen=True, eq=False)
class SparseFrames:
    """Samples as the differences of sorted keys ``cell * 512 + bin``, three bytes an event."""

    lo: npt.NDArray[np.uint8]
    hi: npt.NDArray[np.uint16]
    offsets: npt.NDArray[np.int64]

    def events(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cell and 1 ms bin of each event of a sample."""
        part = slice(self.offsets[sample], self.offsets[sample + 1])
        keys = np.cumsum(self.lo[part] + (self.hi[part].astype(np.int64) << 8))
        return keys >> _BITS_OF_BIN, keys & ((1 << _BITS_OF_BIN) - 1)


def read_sparse_frames(path: Path, *, sha256: str | None = None) -> tuple[SparseFrames, Arrays]:
    """The samples of a file of sparse 1 ms frames, and its other arrays.

    Raises:
        DataError: another checksum, another layout, or an event outside pixels or bins.
    """
    arrays = read_npz(path, _FIELDS, sha256=sha256)
    offsets, count = arrays["offsets"], len(arrays["labels"])
    good = len(offsets) == count + 1 and count > 0 and offsets[0] == 0 and (np.diff(offsets) > 0).all()
    if not good or offsets[-1] != len(arrays["lo"]) or len(arrays["lo"]) != len(arrays["hi"]):
        raise DataError(f"{path}: offsets do not cut {len(arrays['lo'])} events into {count} samples, none empty")
    frames = SparseFrames(arrays["lo"], arrays["hi"], offsets)
    for sample in range(count):
        cell, tick = frames.events(sample)
        bins = int(arrays["n_bins"][sample])
        if int(cell[-1]) >= 2 * SIDE * SIDE or int(tick.max()) >= bins:
            raise DataError(
                f"{path}: sample {sample} has an event in cell {cell[-1]}, bin {tick.max()}; "
                f"expected cells below {2 * SIDE * SIDE} and bins below {bins}"
            )
    return frames, arrays


def load_nmnist(
    folder: Path | str | None = None,
    *,
    fold: int = 0,
    steps: int | None = None,
    step_ms: float | None = None,
    counts: bool = False,
) -> DataSet:
    """N-MNIST, 4,000 samples of the digits 0 to 7, in five folds.

    Samples: 500 of each digit out of the published training set, noise-filtered, binned to
    1 ms.  Fold `fold` is the test set, the next one (cyclically) validation, the other three
    are for training; folds are ``stratified_folds("n-mnist", labels)``, 100 of each digit.

    Layout ``[T, N, 2, 34, 34]``, 1 where the pixel sent an event in the step, with `counts`
    how many; by default 10 steps of 34 ms.  Three bytes an event are kept in memory, frames
    are made batch by batch.

    Source: see `nmnist_events`.  Licence CC BY-SA 4.0.

    Raises:
        DataError: the file is not there or another one, no such fold, or steps that the 1 ms
            bins do not allow.
    """
    found, form = FRAMES_PLACES.find(folder)
    frames, arrays = read_sparse_frames(found / form.files[0], sha256=FRAMES_SHA256)
    labels = arrays["labels"].astype(np.int64)
    time = choose_steps("n-mnist", WINDOW_US, 1000, steps, step_ms)
    source = FrameSource(frames, labels, SHAPE, time, counts)
    return DataSet(
        name="n-mnist",
        splits=fold_splits("n-mnist", source, fold),
        class_names=tuple("01234567"),
        sample_shape=SHAPE,
        layout="TNCHW",
        scale=1.0,
        steps=time.steps,
        step_ms=time.step_ms,
        notes=(f"fold {fold} of 5; digits 0 to 7 of the published training set",),
    )

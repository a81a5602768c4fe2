"""Frames of event data, kept on the disk: a recording is decoded and binned once for every setting."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol, final

import numpy as np
import numpy.typing as npt

from spikequant.data.frames import EqualCounts, TimeSteps
from spikequant.data.npz import read_npz
from spikequant.law.errors import DataError

VERSION = 1
"""Of the binning: entries of another version are not read."""
FIELDS = {"places": ("uint32", 1), "counts": ("uint16", 1)}
Sparse = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]
"""Places in a sample's frames that hold events, and how many each holds."""


def cache_folder() -> Path:
    """``$SPIKEQUANT_CACHE/frames``, else ``~/.cache/spikequant/frames`` (``$XDG_CACHE_HOME``)."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("SPIKEQUANT_CACHE") or Path(home) / "spikequant") / "frames"


class KeyedRecordings(Protocol):
    """Samples of events that know what they are made of."""

    def events(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cell ``(p * H + y) * W + x`` and microsecond of each event of a sample."""
        ...

    def key(self, sample: int) -> str:
        """A name that changes whenever the events of the sample would: a hash of the file's content."""
        ...


@final
@dataclass(frozen=True, eq=False)
class CachedFrames:
    """Recordings as frames ``[T, n, *shape]``, float32, as `FrameSource` makes them; each is binned once.

    An entry is a file named after the hash of the recording's content and of all settings; it is written whole or not
    at all, and a damaged one is made again.  Where the folder cannot be written, nothing is kept.
    """

    recordings: KeyedRecordings
    labels: npt.NDArray[np.int64]
    shape: tuple[int, int, int]
    time: TimeSteps | EqualCounts
    counts: bool = False
    folder: Path | None = None

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The frames of these samples."""
        cells, steps = prod(self.shape), self.time.steps
        frames = np.zeros((steps, len(indices), cells), np.float32)
        for place, sample in enumerate(indices):
            where, counts = self._sparse(int(sample))
            frames[where // cells, place, where % cells] = counts if self.counts else 1
        return frames.reshape(steps, len(indices), *self.shape)

    def _sparse(self, sample: int) -> Sparse:
        settings = f"{VERSION} {self.shape} {self.time} {self.recordings.key(sample)}"
        name = hashlib.sha256(settings.encode()).hexdigest()
        path = (cache_folder() if self.folder is None else self.folder) / name[:2] / f"{name}.npz"
        return _kept_or_made(path, lambda: self._bin(sample))

    def _bin(self, sample: int) -> Sparse:
        cell, tick = self.recordings.events(sample)
        step = self.time.steps_of(tick)
        inside = (step >= 0) & (step < self.time.steps)
        places, counts = np.unique(step[inside] * prod(self.shape) + cell[inside], return_counts=True)
        return places.astype(np.uint32), np.minimum(counts, 0xFFFF).astype(np.uint16)


def _kept_or_made(path: Path, make: Callable[[], Sparse]) -> Sparse:
    if path.is_file():
        with contextlib.suppress(DataError):  # a damaged entry is made again
            found = read_npz(path, FIELDS)
            if found["places"].shape == found["counts"].shape:
                return found["places"], found["counts"]
    places, counts = make()
    with contextlib.suppress(OSError):  # a cache is no promise: a full or read-only disk only costs time
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, places=places, counts=counts)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return places, counts


__all__ = ["CachedFrames", "KeyedRecordings", "cache_folder"]

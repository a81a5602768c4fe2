"""Event data sets whose samples are single files, one folder a class: CIFAR10-DVS and N-Caltech101."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from spikequant.data import aedat2, nmnist_events
from spikequant.data.checked_files import read_file
from spikequant.data.dataset import DataSet, Split
from spikequant.data.frame_cache import CachedFrames
from spikequant.data.frames import Events, choose_binning
from spikequant.data.places import Form, Places
from spikequant.data.splits import held_out
from spikequant.law.errors import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_DVS_PLACES = Places(
    "cifar10-dvs",
    ("cifar10-dvs", "CIFAR10DVS", "CIFAR10-DVS"),
    (Form("the AEDAT 2.0 recordings unpacked, a folder a class", tuple(f"{c}/*.aedat" for c in CIFAR10_CLASSES)),),
    "They are published at figshare.com/articles/dataset/CIFAR10-DVS_New/4724671.",
)
NCALTECH101_PLACES = Places(
    "n-caltech101",
    ("n-caltech101", "n-caltech101/Caltech101", "Caltech101"),
    (Form("the event files unpacked, a folder a class", ("*/image_*.bin",)),),
    "They are published at www.garrickorchard.com/datasets/n-caltech101.",
)
NCALTECH101_SIDES = (240, 180)
Parse = Callable[[bytes, str], Events]


@final
class FileRecordings:
    """One sample a file, decoded when it is asked for."""

    def __init__(self, files: tuple[Path, ...], parse: Parse, width: int, height: int, largest: int) -> None:
        self._files, self._parse, self._largest = files, parse, largest
        self._width, self._height = width, height
        self._last: tuple[int, bytes] | None = None

    def events(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cell and microsecond, from the first event, of each event of a sample."""
        events = self._parse(self._content(sample), str(self._files[sample]))
        cells = (events.p * self._height + events.y) * self._width + events.x
        return cells, events.t_us - events.t_us[0]

    def key(self, sample: int) -> str:
        """Hash of the file."""
        return hashlib.sha256(self._content(sample)).hexdigest()

    def _content(self, sample: int) -> bytes:
        if self._last is None or self._last[0] != sample:
            self._last = (sample, read_file(self._files[sample], largest=self._largest))
        return self._last[1]


def load_cifar10_dvs(
    folder: Path | str | None = None, *, steps: int | None = None, step_ms: float | None = None, counts: bool = False
) -> DataSet:
    """CIFAR10-DVS: images of CIFAR-10 moved before a DVS128, 10,000 recordings of some 1.3 s, ``<class>/<name>.aedat``.

    No split is published.  As most papers do, the last tenth of each class (by the number in the name) is the test set;
    a tenth of the rest is validation, by ``held_out("cifar10-dvs-validation", labels, N // 10)``.  Layout
    ``[T, N, 2, 128, 128]``, channel and x as sent by the camera (`aedat2`).  10 steps of as many events each; with
    `step_ms` steps of equal time, counted from the first event: without `steps` as many as cover 1.3 s.  Recordings are
    of different lengths; events behind the last step are left out, and a shorter recording ends in empty steps.

    Source: Li et al., *CIFAR10-DVS: an event-stream dataset for object classification*, Frontiers in Neuroscience 2017.

    Raises:
        DataError: files are not there, or one has no number in its name; on a batch, a damaged file.
    """
    found, _ = CIFAR10_DVS_PLACES.find(folder)
    files, labels = _by_class(found, CIFAR10_CLASSES, ".aedat")
    last = np.zeros(len(files), np.bool_)
    for label in range(len(CIFAR10_CLASSES)):
        members = np.flatnonzero(labels == label)
        last[members[len(members) - -(-len(members) // 10) :]] = True
    recordings = FileRecordings(files, _cifar10_dvs_events, 128, 128, aedat2.LARGEST_RECORDING)
    time = choose_binning("cifar10-dvs", 1_300_000, steps, step_ms, 10)
    source = CachedFrames(recordings, labels, (2, 128, 128), time, counts)
    return _data_set("cifar10-dvs", source, last, CIFAR10_CLASSES)


def load_ncaltech101(
    folder: Path | str | None = None, *, steps: int | None = None, step_ms: float | None = None, counts: bool = False
) -> DataSet:
    """N-Caltech101: images of Caltech101 before an ATIS, 8,709 recordings of 300 ms, ``<class>/image_<number>.bin``.

    No split is published: a tenth is the test set, by ``held_out("n-caltech101-test", labels, N // 10)``, a tenth of
    the rest validation, likewise.  Layout ``[T, N, 2, 180, 240]``, channel 1 brighter; recordings are smaller than the
    sensor and lie in its corner, as published.  10 steps of as many events each; with `step_ms` steps of equal time,
    counted from the first event: without `steps` as many as cover 300 ms.  Events behind the last step are left out.

    Source: Orchard et al., *Converting static image datasets to spiking neuromorphic datasets using saccades*,
    Frontiers in Neuroscience 2015.

    Raises:
        DataError: files are not there; on a batch, a damaged file.
    """
    found, _ = NCALTECH101_PLACES.find(folder)
    classes = tuple(sorted(path.name for path in found.iterdir() if path.is_dir() and any(path.glob("image_*.bin"))))
    files, labels = _by_class(found, classes, ".bin")
    width, height = NCALTECH101_SIDES
    recordings = FileRecordings(files, _ncaltech101_events, width, height, nmnist_events.LARGEST_RECORDING)
    time = choose_binning("n-caltech101", 300_000, steps, step_ms, 10)
    source = CachedFrames(recordings, labels, (2, height, width), time, counts)
    return _data_set("n-caltech101", source, held_out("n-caltech101-test", labels, max(1, len(labels) // 10)), classes)


def _cifar10_dvs_events(raw: bytes, where: str) -> Events:
    return aedat2.parse_aedat2(raw, where).events


def _ncaltech101_events(raw: bytes, where: str) -> Events:
    width, height = NCALTECH101_SIDES
    return nmnist_events.parse_nmnist(raw, where, width=width, height=height)


def _by_class(found: Path, classes: tuple[str, ...], ending: str) -> tuple[tuple[Path, ...], npt.NDArray[np.int64]]:
    """All files, class by class, each class in the order of the numbers in its names."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        mine = [(_number(path), path) for path in (found / name).glob(f"*{ending}")]
        files += [path for _, path in sorted(mine)]
        labels += [label] * len(mine)
    return tuple(files), np.array(labels, np.int64)


def _number(path: Path) -> int:
    digits = re.findall(r"[0-9]{1,9}", path.stem)
    if not digits:
        raise DataError(f"{path}: no number in its name; expected the names of the published files")
    return int(digits[-1])


def _data_set(name: str, source: CachedFrames, is_test: npt.NDArray[np.bool_], classes: tuple[str, ...]) -> DataSet:
    rest = np.flatnonzero(~is_test)
    if len(rest) < 2:
        raise DataError(f"{name}: {len(source.labels)} recordings; expected enough for three splits")
    is_validation = held_out(f"{name}-validation", source.labels[rest], max(1, len(rest) // 10))
    return DataSet(
        name=name,
        splits={
            "train": Split(source, rest[~is_validation]),
            "validation": Split(source, rest[is_validation]),
            "test": Split(source, np.flatnonzero(is_test)),
        },
        class_names=classes,
        sample_shape=source.shape,
        layout="TNCHW",
        scale=1.0,
        steps=source.time.steps,
        step_ms=source.time.step_ms,
        notes=("no split is published; figures of other splits are not comparable to the point",),
    )


__all__ = ["FileRecordings", "load_cifar10_dvs", "load_ncaltech101"]

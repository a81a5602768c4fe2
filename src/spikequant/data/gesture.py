"""DVS128 Gesture: 11 gestures of 29 people under three lights, from its AEDAT 3.1 files or as cut by tonic."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from spikequant.data import aedat3
from spikequant.data.checked_files import read_file
from spikequant.data.dataset import DataSet, Split
from spikequant.data.frame_cache import CachedFrames, KeyedRecordings
from spikequant.data.frames import Events, choose_binning
from spikequant.data.places import Form, Places
from spikequant.data.splits import held_out
from spikequant.law.errors import DataError

CLASSES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise",
    "left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip
SIDE = 128
LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
CUT = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}
_PUBLISHED = Form("the published recordings", ("*.aedat", "*_labels.csv", *LISTS.values()))
_CUT = Form("the gestures as tonic cuts them", tuple(f"{folder}/*/*.npy" for folder in CUT.values()))
PLACES = Places(
    "dvs-gesture",
    ("dvs-gesture", "DvsGesture", "DVSGesture"),
    (_PUBLISHED, _CUT),
    "It is published at research.ibm.com/interactive/dvsgesture (DvsGesture.tar.gz).",
)
LARGEST_TEXT = 1 << 20
LARGEST_CUT = 1 << 28
Row = tuple[int, int, int]
"""Label from 0, first and last microsecond (not included) of a gesture."""


def read_labels(path: Path) -> list[Row]:
    """The gestures of a recording: ``class,startTime_usec,endTime_usec``, classes from 1.

    Raises:
        DataError: no such file, or a line that is not one.
    """
    lines = read_file(path, largest=LARGEST_TEXT).decode("utf-8", "replace").split()
    rows: list[Row] = []
    for number, line in enumerate(lines[1:], 2):
        match = re.fullmatch(r"([0-9]{1,2}),([0-9]{1,18}),([0-9]{1,18})", line)
        label, start, end = (int(part) for part in match.groups()) if match else (0, 0, 0)
        if not 1 <= label <= len(CLASSES) or start >= end:
            raise DataError(
                f"{path}: line {number} is {line[:60]!r}; expected class 1 to 11, start and a later end in us"
            )
        rows.append((label - 1, start, end))
    if not rows:
        raise DataError(f"{path}: no gestures; expected a header line and lines of class,startTime_usec,endTime_usec")
    return rows


@final
class PublishedGestures:
    """Gestures cut out of recordings; the last recording stays decoded, the samples of one lie side by side."""

    def __init__(self, files: tuple[Path, ...], samples: tuple[tuple[int, Row], ...]) -> None:
        self._files, self._samples = files, samples
        self._hashes: dict[int, str] = {}
        self._last: tuple[int, Events] | None = None

    def events(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cell and microsecond, from the start of the gesture, of each event."""
        which, (_, start, end) = self._samples[sample]
        if self._last is None or self._last[0] != which:
            self._last = (which, aedat3.read_aedat3(self._files[which], width=SIDE, height=SIDE))
        events = self._last[1]
        inside = (events.t_us >= start) & (events.t_us < end)
        if not inside.any():
            raise DataError(
                f"{self._files[which]}: no event from {start} to {end} us, where its labels have a gesture; "
                "expected the labels of this recording"
            )
        cells = (events.p[inside] * SIDE + events.y[inside]) * SIDE + events.x[inside]
        return cells, events.t_us[inside] - start

    def key(self, sample: int) -> str:
        """Hash of the recording, and the gesture in it."""
        which, (_, start, end) = self._samples[sample]
        if which not in self._hashes:
            content = read_file(self._files[which], largest=aedat3.LARGEST_RECORDING)
            self._hashes[which] = hashlib.sha256(content).hexdigest()
        return f"{self._hashes[which]} {start} {end}"


@final
class CutGestures:
    """Gestures that lie in files of their own, ``[events, 4]``: x, y, polarity, milliseconds."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files

    def events(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cell and microsecond, from the first event, of each event."""
        path = self._files[sample]
        table = _table(read_file(path, largest=LARGEST_CUT), str(path))
        x, y, p = (table[:, k].astype(np.int64) for k in range(3))
        t_us = np.rint(table[:, 3].astype(np.float64) * 1000).astype(np.int64)
        aedat3.on_sensor(Events(x, y, p, t_us), str(path), SIDE, SIDE)
        return (p * SIDE + y) * SIDE + x, t_us - t_us.min()

    def key(self, sample: int) -> str:
        """Hash of the file."""
        return hashlib.sha256(read_file(self._files[sample], largest=LARGEST_CUT)).hexdigest()


def load_dvs_gesture(
    folder: Path | str | None = None, *, steps: int | None = None, step_ms: float | None = None, counts: bool = False
) -> DataSet:
    """DVS128 Gesture with its published split by people: 1,176 gestures to train on, 288 to test.

    Reads the published ``user01_fluorescent.aedat`` with ``..._labels.csv`` and the lists of trials, or the gestures as
    tonic cuts them.  Gestures are cut out from start to just before end.  A tenth of the training set is validation, by
    ``held_out("dvs-gesture-validation", labels, N // 10)``.  Layout ``[T, N, 2, 128, 128]``, channel 1 ON.  20 steps
    of as many events each; with `step_ms` steps of equal time, what comes after 6 s (or after `steps`) is left out.

    Source: Amir et al., *A low power, fully event-based gesture recognition system*, CVPR 2017.

    Raises:
        DataError: files are not there or contradict each other; on a batch, a damaged file.
    """
    found, form = PLACES.find(folder)
    time = choose_binning("dvs-gesture", 6_000_000, steps, step_ms, 20)
    read = _published if form is _PUBLISHED else _cut
    (a, y_train), (b, y_test) = read(found, "train"), read(found, "test")
    train, test = (CachedFrames(one, y, (2, SIDE, SIDE), time, counts) for one, y in ((a, y_train), (b, y_test)))
    if len(train.labels) < 2:
        raise DataError(f"{found}: {len(train.labels)} gesture to train on; expected more")
    is_validation = held_out("dvs-gesture-validation", train.labels, max(1, len(train.labels) // 10))
    return DataSet(
        name="dvs-gesture",
        splits={
            "train": Split(train, np.flatnonzero(~is_validation)),
            "validation": Split(train, np.flatnonzero(is_validation)),
            "test": Split(test, np.arange(len(test.labels))),
        },
        class_names=CLASSES,
        sample_shape=(2, SIDE, SIDE),
        layout="TNCHW",
        scale=1.0,
        steps=time.steps,
        step_ms=time.step_ms,
    )


def _published(found: Path, part: str) -> tuple[KeyedRecordings, npt.NDArray[np.int64]]:
    text = read_file(found / LISTS[part], largest=LARGEST_TEXT).decode("utf-8", "replace")
    names = [line.strip() for line in text.splitlines() if line.strip()]
    for name in names:
        if not re.fullmatch(r"[\w.-]+[.]aedat", name) or not (found / name).is_file():
            raise DataError(
                f"{found / LISTS[part]}: {name[:60]!r} is no recording beside it; expected names of .aedat files"
            )
    files = tuple(found / name for name in names)
    samples = [
        (k, row) for k, path in enumerate(files) for row in read_labels(path.with_name(f"{path.stem}_labels.csv"))
    ]
    return PublishedGestures(files, tuple(samples)), np.array([row[0] for _, row in samples], np.int64)


def _cut(found: Path, part: str) -> tuple[KeyedRecordings, npt.NDArray[np.int64]]:
    files = sorted((found / CUT[part]).glob("*/*.npy"), key=lambda path: (path.parent.name, len(path.stem), path.stem))
    for path in files:
        if not re.fullmatch("[0-9]|10", path.stem):
            raise DataError(f"{path}: expected <class 0 to 10>.npy; move it elsewhere")
    return CutGestures(tuple(files)), np.array([int(path.stem) for path in files], np.int64)


def _table(raw: bytes, where: str) -> npt.NDArray[Any]:
    """An array ``[events, 4]`` of real numbers, whole."""
    file = io.BytesIO(raw)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, by_columns, dtype = readers[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError) as error:
        raise DataError(f"{where}: no array of numpy ({error}); fetch the file again") from error
    size = shape[0] * 4 * dtype.itemsize if len(shape) == 2 else -1
    if len(shape) != 2 or shape[1] != 4 or dtype.kind not in "iuf" or len(raw) - file.tell() != size:
        raise DataError(
            f"{where}: {dtype} of shape {list(shape)} in {len(raw) - file.tell()} bytes; expected real numbers, "
            "[events, 4] (x, y, polarity, milliseconds), and nothing behind them"
        )
    table = np.frombuffer(raw, dtype, offset=file.tell()).reshape(shape, order="F" if by_columns else "C")
    if dtype.kind == "f" and not np.isfinite(table).all():
        raise DataError(f"{where}: holds NaN or infinity; fetch the file again")
    return table


__all__ = ["CLASSES", "load_dvs_gesture", "read_labels"]

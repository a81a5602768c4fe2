"""Recordings of a DVS128, cut into windows: the objects of BioLab, or recordings of your own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from spikequant.data.aedat2 import LARGEST_RECORDING, SIDE, Recording, parse_aedat2, read_aedat2
from spikequant.data.archives import tar_members
from spikequant.data.checked_files import check_file
from spikequant.data.dataset import DataSet, Split
from spikequant.data.frames import FrameSource, TimeSteps, choose_steps
from spikequant.data.places import Form, Places
from spikequant.law.errors import DataError

SHAPE = (2, SIDE, SIDE)
Compact = tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]
"""Cell and microsecond of each event of a recording."""
OBJECTS_FILE = "dvs128_objects_aedat2.tar.xz"
OBJECTS_SHA256 = "091c94c00bc257200db45710ab68432dcdc5a2009c40b84ad6c4063d4268b77d"
_UNPACKED = Form("one recording a class", ("train/*.aedat", "test/*.aedat"))
_PACKED = Form("the recordings in one archive", (OBJECTS_FILE,))
OBJECTS_PLACES = Places(
    "dvs128-objects",
    ("dvs128-objects",),
    (_PACKED,),
    "Its recordings are those of github.com/eberlawrence/DVS128_BioLab; those unpacked are read as aedat2.",
)
OWN_PLACES = Places(
    "aedat2", ("aedat2",), (_UNPACKED,), "A class is named after its file: train/cup.aedat, test/cup.aedat."
)


@final
@dataclass(frozen=True, eq=False)
class Windows:
    """Recordings of one part, one a class, as windows of equal length.

    Window `w` of a recording holds its events from ``w * window_us`` to just before
    ``(w + 1) * window_us`` after the first event; what is left at the end is no window.
    Kept are two bytes of cell and four of time an event.
    """

    cells: tuple[npt.NDArray[np.uint16], ...]
    times: tuple[npt.NDArray[np.uint32], ...]
    recording: npt.NDArray[np.int64]
    window: npt.NDArray[np.int64]
    window_us: int

    def events(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cell and microsecond, from the start of the window, of each event of a window."""
        which, start = int(self.recording[sample]), int(self.window[sample]) * self.window_us
        times = self.times[which]
        # Edges of the type of the times: others would have the whole recording converted for each window.
        edges = np.array([start, start + self.window_us], np.uint32)
        part = slice(*np.searchsorted(times, edges))
        return self.cells[which][part].astype(np.int64), times[part].astype(np.int64) - start


def compact(recording: Recording, where: str) -> Compact:
    """Cell and microsecond of each event of a recording, in six bytes.

    Raises:
        DataError: a recording of more than 71 minutes.
    """
    events = recording.events
    t_us = events.t_us - events.t_us[0]
    if int(t_us[-1]) >= 1 << 32:
        raise DataError(f"{where}: lasts {t_us[-1] / 1e6:.3f} s; expected at most 71 minutes, cut it in two")
    cells = (events.p * SIDE + events.y) * SIDE + events.x
    return cells.astype(np.uint16), t_us.astype(np.uint32)


def cut_windows(recordings: dict[str, Compact], window_us: int) -> Windows:
    """All whole windows of the recordings, recording by recording in the order of time.

    Raises:
        DataError: a recording that is shorter than one window.
    """
    counts = {name: int(times[-1]) // window_us for name, (_, times) in recordings.items()}
    for name, count in counts.items():
        if count < 1:
            lasts = int(recordings[name][1][-1]) / 1e6
            raise DataError(f"{name}: lasts {lasts:.3f} s; expected at least one window of {window_us / 1e6} s")
    cells, times = zip(*recordings.values(), strict=True)
    which = np.repeat(np.arange(len(counts)), list(counts.values()))
    window = np.concatenate([np.arange(count) for count in counts.values()])
    return Windows(cells, times, which.astype(np.int64), window, window_us)


def load_dvs128_objects(
    folder: Path | str | None = None,
    *,
    window_ms: float = 200,
    steps: int | None = None,
    step_ms: float | None = None,
    counts: bool = False,
) -> DataSet:
    """Five hand-held objects before a DVS128, two sessions, cut into windows.

    The first session is for training, but the last fifth of the windows of each recording is
    validation (neighbouring windows are alike, so they are not drawn at random); the second
    session is the test set.  With 200 ms: 844 and 470 windows.

    Layout ``[T, N, 2, 128, 128]``, channel and x as sent by the camera (see `aedat2`: channel
    0 is ON), 1 where the pixel sent an event in the step, with `counts` how many; by default
    10 steps of 20 ms.

    Source: Biomedical Engineering Laboratory, Federal University of Uberlandia; no licence
    stated.

    Raises:
        DataError: the file is not there or another one, or windows that no recording holds.
    """
    found, _ = OBJECTS_PLACES.find(folder)
    path = found / OBJECTS_FILE
    check_file(path, sha256=OBJECTS_SHA256)
    members = tar_members(path, r"(train|test)/[^/]+[.]aedat", largest=LARGEST_RECORDING)
    recordings = {name: compact(parse_aedat2(raw, f"{path}/{name}"), name) for name, raw in members}
    return _data_set("dvs128-objects", recordings, window_ms, (steps, step_ms, counts))


def load_aedat2(
    folder: Path | str | None = None,
    *,
    window_ms: float = 200,
    steps: int | None = None,
    step_ms: float | None = None,
    counts: bool = False,
) -> DataSet:
    """DVS128 recordings of your own: ``train/<class>.aedat`` and ``test/<class>.aedat``.

    Classes are the file names in alphabetical order; windows, splits and layout are those of
    `load_dvs128_objects`.

    Raises:
        DataError: no such files, a class on one side only, a damaged recording, or one that is
            shorter than a window.
    """
    found, _ = OWN_PLACES.find(folder)
    paths = [path for part in ("train", "test") for path in (found / part).glob("*.aedat")]
    recordings = {path.relative_to(found).as_posix(): compact(read_aedat2(path), str(path)) for path in paths}
    return _data_set("aedat2", recordings, window_ms, (steps, step_ms, counts))


def _data_set(
    name: str, recordings: dict[str, Compact], window_ms: float, frames: tuple[int | None, float | None, bool]
) -> DataSet:
    window_us = round(window_ms * 1000) if isfinite(window_ms) else 0
    if window_us < 1:
        raise DataError(f"{name}: window_ms={window_ms}; expected the length of a sample, such as 200")
    classes = {
        part: [re.sub(r".*/|[.]aedat$", "", key) for key in sorted(recordings) if key.startswith(f"{part}/")]
        for part in ("train", "test")
    }
    if classes["train"] != classes["test"]:
        odd = sorted(set(classes["train"]) ^ set(classes["test"]))
        raise DataError(f"{name}: {', '.join(odd)} on one side only; every class needs a train and a test file")
    time = choose_steps(name, window_us, 1, *frames[:2])
    train, test = (
        _source(
            {key: recordings[key] for key in sorted(recordings) if key.startswith(f"{part}/")},
            window_us,
            time,
            frames[2],
        )
        for part in ("train", "test")
    )
    is_validation = _last_fifth(train.labels)
    return DataSet(
        name=name,
        splits={
            "train": Split(train, np.flatnonzero(~is_validation)),
            "validation": Split(train, np.flatnonzero(is_validation)),
            "test": Split(test, np.arange(len(test.labels))),
        },
        class_names=tuple(classes["train"]),
        sample_shape=SHAPE,
        layout="TNCHW",
        scale=1.0,
        steps=time.steps,
        step_ms=time.step_ms,
        notes=(f"windows of {window_us / 1000:g} ms; validation is the last fifth of each training recording",),
    )


def _source(recordings: dict[str, Compact], window_us: int, time: TimeSteps, counts: bool) -> FrameSource:
    windows = cut_windows(recordings, window_us)
    return FrameSource(windows, windows.recording, SHAPE, time, counts)


def _last_fifth(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """True for the last ``ceil(n / 5)`` of the `n` windows of each recording."""
    chosen = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[members[len(members) - -(-len(members) // 5) :]] = True
    return chosen

"""Events binned into frames, batch by batch: nothing dense is kept."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, prod
from typing import Protocol, final

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

MOST_STEPS = 10_000


@final
@dataclass(frozen=True, eq=False)
class Events:
    """The events of one recording, in the order in which they happened.

    Shapes: all ``[events]``; `x`, `y` pixels, `p` polarity 0 or 1, `t_us` microseconds.
    """

    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    p: npt.NDArray[np.int64]
    t_us: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.t_us)


@final
@dataclass(frozen=True)
class TimeSteps:
    """How time becomes steps: an event at tick `t` falls into step ``t // width``.

    Events at step `steps` and later are left out.  A tick has `tick_us` microseconds.
    """

    steps: int
    width: int
    tick_us: int

    @property
    def step_ms(self) -> float:
        """Length of a step in milliseconds."""
        return self.width * self.tick_us / 1000

    def steps_of(self, ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The step of each event."""
        return ticks // self.width


@final
@dataclass(frozen=True)
class EqualCounts:
    """Event `k` of `n`, in the order of the recording, falls into step ``k * steps // n``: as many in every step.

    >>> EqualCounts(2).steps_of(np.array([0, 1, 2, 900])).tolist()
    [0, 0, 1, 1]
    """

    steps: int

    @property
    def step_ms(self) -> None:
        """None: steps have no common length."""
        return

    def steps_of(self, ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The step of each event."""
        return np.arange(len(ticks)) * self.steps // max(len(ticks), 1)


def choose_binning(
    name: str, window_us: int, steps: int | None, step_ms: float | None, default: int
) -> TimeSteps | EqualCounts:
    """`TimeSteps` where `step_ms` is given (without `steps` as many as cover `window_us`), else `EqualCounts`.

    Raises:
        DataError: as `choose_steps`.
    """
    if step_ms is not None:
        return choose_steps(name, window_us, 1, steps, step_ms)
    count = default if steps is None else steps
    if not 1 <= count <= MOST_STEPS:
        raise DataError(f"{name}: steps={count}; expected 1 to {MOST_STEPS}")
    return EqualCounts(count)


def choose_steps(name: str, window_us: int, tick_us: int, steps: int | None, step_ms: float | None) -> TimeSteps:
    """The steps for a window of `window_us`, from what the caller gave.

    With `steps` alone the window is cut into that many steps, each of a whole number of ticks
    (rounded up); with `step_ms` alone there are as many as cover the window; with both, what
    comes after them is left out; with neither, 10 steps.

    Raises:
        DataError: fewer than 1 or more than 10,000 steps, a length that is no whole number of
            ticks, or steps shorter than a tick.

    >>> choose_steps("toy", 340_000, 1000, steps=10, step_ms=None)
    TimeSteps(steps=10, width=34, tick_us=1000)
    >>> choose_steps("toy", 340_000, 1, steps=None, step_ms=0.5).steps
    680
    """
    ticks = window_us // tick_us
    if step_ms is None:
        count = 10 if steps is None else steps
        width = -(-ticks // max(count, 1))
        if count > ticks:
            raise DataError(f"{name}: {ticks} ticks of {tick_us} us make at most as many steps, got {count}")
    else:
        exact = step_ms * 1000 / tick_us if isfinite(step_ms) else 0.0
        width = round(exact)
        if width < 1 or abs(exact - width) > 1e-6:
            raise DataError(f"{name}: step_ms={step_ms}; expected a multiple of {tick_us / 1000} ms")
        count = -(-ticks // width) if steps is None else steps
    if not 1 <= count <= MOST_STEPS:
        raise DataError(f"{name}: steps={count}; expected 1 to {MOST_STEPS}")
    return TimeSteps(count, width, tick_us)


class Recordings(Protocol):
    """Samples of events, each decoded when it is asked for."""

    def events(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cell ``(p * H + y) * W + x`` and tick of each event of a sample."""
        ...


@final
@dataclass(frozen=True, eq=False)
class FrameSource:
    """Recordings as frames ``[T, n, *shape]``, float32.

    ``frame[t, i, cell] = 1`` if sample `i` has an event in that cell with ``tick // width == t``;
    with `counts` the number of such events.

    Raises:
        DataError: on `take`, when a recording turns out to be damaged.
    """

    recordings: Recordings
    labels: npt.NDArray[np.int64]
    shape: tuple[int, int, int]
    time: TimeSteps
    counts: bool = False

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The frames of these samples; memory is that of the result and of one recording."""
        cells = prod(self.shape)
        frames = np.zeros(self.time.steps * len(indices) * cells, np.float32)
        for place, sample in enumerate(indices):
            cell, tick = self.recordings.events(int(sample))
            step = self.time.steps_of(tick)
            inside = step < self.time.steps
            where = (step[inside] * len(indices) + place) * cells + cell[inside]
            if self.counts:
                np.add.at(frames, where, 1)
            else:
                frames[where] = 1
        return frames.reshape(self.time.steps, len(indices), *self.shape)


def check_events(events: Events, where: str, width: int, height: int) -> Events:
    """`events`, if there are any, on the sensor, and in the order of time.

    Raises:
        DataError: no events, a coordinate outside the sensor, a timestamp that falls.
    """
    if len(events) == 0:
        raise DataError(f"{where}: holds no events; an empty recording is no sample, remove it or fetch it again")
    for axis, values, size in (("x", events.x, width), ("y", events.y, height)):
        if int(values.max()) >= size:
            event = int(np.argmax(values >= size))
            raise DataError(f"{where}: event {event} has {axis}={values[event]}, expected 0 to {size - 1}")
    falls = np.flatnonzero(np.diff(events.t_us) < 0)
    if len(falls):
        event = int(falls[0])
        raise DataError(
            f"{where}: time falls from {events.t_us[event]} to {events.t_us[event + 1]} us after event {event}; "
            "expected timestamps that never fall, the file is damaged"
        )
    return events

"""Schedules of the learning rate: a share of the rate that was given, over the whole training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from spikequant.law.errors import DataError
from spikequant.training.step import check_number

LEAST = 0.01
SHORTEST = 0.01
"""Where a cosine ends, as a share of the rate."""


class Schedule(ABC):
    """A function of the epochs that are done."""

    @abstractmethod
    def share(self, done: float, epochs: int) -> float:
        """Share of the given rate after `done` of `epochs` epochs (with the fraction of the running one)."""


@final
@dataclass(frozen=True)
class Constant(Schedule):
    """The given rate.

    >>> Constant().share(3.5, 5)
    1.0
    """

    def share(self, done: float, epochs: int) -> float:
        """1."""
        return 1.0


@final
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 to `least`, behind a straight line up over the first `warmup` epochs.

    >>> [round(Cosine(least=0.0).share(done, 4), 3) for done in (0, 1, 2, 4)]
    [1.0, 0.854, 0.5, 0.0]
    >>> Cosine(warmup=2.0).share(1.0, 10)
    0.5

    Raises:
        DataError: `least` is no share, or `warmup` is negative.
    """

    least: float = LEAST
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_number("Cosine", "least", self.least, low=0.0, high=1.0)
        check_number("Cosine", "warmup", self.warmup, low=0.0)

    def share(self, done: float, epochs: int) -> float:
        """Share of the rate after `done` epochs."""
        if done < self.warmup:
            return _raised(done, self.warmup)
        return _cosine((done - self.warmup) / max(epochs - self.warmup, 1e-9), self.least)


@final
@dataclass(frozen=True, kw_only=True)
class WarmRestarts(Schedule):
    """Cosines that begin anew: `first` epochs, then each `factor` times as long, each from `decay` times the height.

    ``share = least + (decay^k - least) (1 + cos(pi t / T_k)) / 2``, ``T_k = first * factor^k``.
    Source: Loshchilov and Hutter, *SGDR*, ICLR 2017, equation 5 (`decay` is 1 there).

    >>> schedule = WarmRestarts(first=2, factor=2, least=0.0)
    >>> [round(schedule.share(done, 6), 3) for done in (0, 1, 2, 4, 6)]
    [1.0, 0.5, 1.0, 0.5, 1.0]

    Raises:
        DataError: a length or share that is none, or a first cosine shorter than a hundredth of an epoch.
    """

    first: float = 1.0
    factor: float = 2.0
    decay: float = 1.0
    least: float = LEAST
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_number("WarmRestarts", "first", self.first, low=SHORTEST)
        check_number("WarmRestarts", "factor", self.factor, low=1.0)
        check_number("WarmRestarts", "decay", self.decay, low=0.0, high=1.0)
        check_number("WarmRestarts", "least", self.least, low=0.0, high=1.0)
        check_number("WarmRestarts", "warmup", self.warmup, low=0.0)

    def share(self, done: float, epochs: int) -> float:
        """Share of the rate after `done` epochs."""
        if done < self.warmup:
            return _raised(done, self.warmup)
        at, length, height = done - self.warmup, self.first, 1.0
        while at >= length:
            at, length, height = at - length, length * self.factor, height * self.decay
        return min(height, self.least) + max(height - self.least, 0.0) * _cosine(at / length, 0.0)


SCHEDULES: dict[str, Schedule] = {"cosine": Cosine(), "constant": Constant(), "restarts": WarmRestarts()}


def schedule_of(given: str | Schedule) -> Schedule:
    """A schedule, by name or as it is.

    >>> schedule_of("constant")
    Constant()

    Raises:
        DataError: no such schedule.
    """
    if isinstance(given, Schedule):
        return given
    if not isinstance(given, str) or given not in SCHEDULES:
        raise DataError(f"fit: schedule {given!r}; expected {', '.join(map(repr, SCHEDULES))} or a Schedule")
    return SCHEDULES[given]


def _cosine(progress: float, least: float) -> float:
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def _raised(done: float, warmup: float) -> float:
    return max(done / warmup, 1e-3)  # a rate of 0 moves nothing, and the first step is one of the few


__all__ = ["SCHEDULES", "Constant", "Cosine", "Schedule", "WarmRestarts", "schedule_of"]

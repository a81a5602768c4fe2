"""The last choice of an exploration: finalists on samples that the exploration did not see, by a paired interval.

The best of many looks at few samples is optimistic.  So a few of those that keep the target and are small enough are
looked at once more, smallest first, and the first whose interval ends above what is asked for is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from spikequant.analyse import observe, paired_difference
from spikequant.explore import Study, Trial
from spikequant.explore.selection import keeps
from spikequant.law.errors import DataError
from spikequant.training import Batch

LOOKS = 8
"""Finalists at most: each costs a pass over the samples."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A finalist on the samples that decide: change of accuracy in points and half of its 95 % interval."""

    trial: Trial
    smaller: float
    difference: float
    interval: float

    @property
    def lower(self) -> float:
        """The end of the interval, in points."""
        return self.difference - self.interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        settings = dict(self.trial.candidate.settings)
        return {"settings": settings, "smaller": self.smaller, "difference": self.difference, "interval": self.interval}


def apart(
    held_out: Sequence[Batch], unseen: Iterable[Batch], exploring: int, deciding: int
) -> tuple[list[Batch], list[Batch]]:
    """Whole batches for so many samples to explore on, and for so many others to decide on.

    The first ones of `held_out` are explored on; the rest of them decides, then `unseen`: training samples that nothing
    was trained or calibrated on.  Where nothing is left, as in small data sets, those that were explored on decide.

    >>> import torch
    >>> few = [(None, torch.zeros(2)) for _ in range(3)]
    >>> [[len(y) for _, y in part] for part in apart(few, [(None, torch.zeros(9))], 3, 5)]
    [[2, 2], [2, 9]]
    """
    explored = so_many(iter(held_out), exploring)
    others = so_many(chain(held_out[len(explored) :], unseen), deciding)
    return explored, others or explored


def so_many(batches: Iterable[Batch], samples: int) -> list[Batch]:
    """The first whole batches that hold so many samples; fewer where there are fewer."""
    found: list[Batch] = []
    for batch in batches:
        found.append(batch)
        samples -= len(batch[1])
        if samples <= 0:
            break
    return found


def confirmed(
    study: Study, batches: Sequence[Batch], *, least_smaller: float, least_points: float
) -> tuple[Trial, tuple[Look, ...]]:
    """The smallest finalist whose change of accuracy on `batches` ends above `least_points`, and all looks.

    Where none does, the one whose interval ends highest; where nothing is `least_smaller` times smaller and keeps the
    target of the study, the most accurate trial, without a look.

    Raises:
        DataError: none of the trials can be built.
    """
    few = finalists(study, least_smaller)
    if not few:
        return most_accurate(study.trials), ()
    real = observe(study.materials.model, batches, operations=False).right
    looks: list[Look] = []
    for trial in few:
        network, _ = study.apply(trial)
        difference, interval = paired_difference(real, observe(network, batches, operations=False).right)
        look = Look(trial=trial, smaller=_smaller(study, trial), difference=difference, interval=interval)
        looks.append(look)
        if look.lower >= least_points:
            return trial, tuple(looks)
    return max(looks, key=lambda look: look.lower).trial, tuple(looks)


def finalists(study: Study, least_smaller: float, looks: int = LOOKS) -> list[Trial]:
    """Of what is small enough and keeps the target of the study, in groups of like size the most accurate.

    Smallest first; not the front alone, which one lucky small candidate empties.
    """
    small = [
        t for t in study.trials if keeps(t.measured, study.target_accuracy) and _smaller(study, t) >= least_smaller
    ]
    small.sort(key=lambda trial: -_smaller(study, trial))
    parts = [small[k * len(small) // looks : (k + 1) * len(small) // looks] for k in range(looks)]
    return [max(part, key=lambda trial: trial.measured.accuracy) for part in parts if part]


def most_accurate(trials: Iterable[Trial]) -> Trial:
    """Of the candidates that saw all samples; where all were given up early, by the samples that they saw.

    Raises:
        DataError: none can be built.
    """
    built = [trial for trial in trials if not trial.was_refused]
    if not built:
        raise DataError("q-spinn: no candidate of the space can be built")
    ranked = [trial for trial in built if not trial.measured.stopped_early] or built
    return max(ranked, key=lambda trial: trial.measured.accuracy)


def _smaller(study: Study, trial: Trial) -> float:
    real, mine = study.reference, trial.measured
    return (real.flash_bytes + real.ram_bytes) / (mine.flash_bytes + mine.ram_bytes)

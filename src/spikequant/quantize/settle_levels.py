"""Where the levels of a learned membrane lie: starts from the real membrane, then a descent on the firing rates.

A membrane is not a weight: its error comes back at every step, and what counts is when it crosses the threshold.  So
the least squared error (k-means, LQ-Net) only gives starts, with uniform signed and unsigned tables beside them; one
after the other each level and cut is then moved as long as the rates of the layer, run alone on its recorded input,
come nearer to those of a wide membrane.  Level 0 stays, so that a reset and a neuron at rest are exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Table = tuple[Tensor, Tensor]
"""Levels ``[L]`` and cuts ``[L - 1]``, real units, float64."""
REACHES = (0.5, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0)
"""Of uniform tables, in thresholds."""
PLACES = (0.5, 0.75, 1.0)
"""Where a cut lies between two levels, counted from the one nearer to 0: 0.5 is the nearest, 1 rounds toward 0."""
MOVES = (0.25, 0.1)
"""Sizes of the steps of the descent, in the distance to the neighbour."""
FOLLOWED = 2
"""Starts from which the descent goes on."""
SAMPLES = 2**13
"""Values of the membrane that are looked at, of every step and batch."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """A table, the error of the firing rates under it, and their mean."""

    table: Table
    error: float
    rate: float


Judge = Callable[[Table], tuple[float, float]]
"""Error of the firing rates, and their mean, under a table."""


def placed(states: Tensor, bits: int, threshold: float, judge: Judge) -> Placed:
    """The best table for `states` (real membranes, any shape)."""
    tried = []
    for levels in starts(states, bits, threshold):
        for place in PLACES:
            table = (levels, cuts_between(levels, place))
            tried.append(Placed(table, *judge(table)))
    best = sorted(tried, key=lambda found: found.error)[:FOLLOWED]
    for move in MOVES:
        best = [_descended(found, move, judge) for found in best]
    return min(best, key=lambda found: found.error)


def starts(states: Tensor, bits: int, threshold: float) -> Iterator[Tensor]:
    """Levels to begin with: uniform of both signs and of one, spread over the range of the states, and k-means."""
    count = 2**bits
    values = sampled(states).to(torch.float64)
    steps = torch.arange(count, dtype=torch.float64)
    for reach in REACHES:
        yield (steps - count // 2) * (threshold * reach / (count // 2))
        yield steps * (threshold * reach / (count - 1))
    low, high = (float(torch.quantile(values, q)) for q in (0.01, 0.99))
    if high > max(low, 0.0):
        below = min(count - 2, max(0, round(-low / (high - min(low, 0.0)) * (count - 1))))
        spread = (steps - below) * (high - min(low, 0.0)) / (count - 1)
        yield spread
        yield k_means_with_zero(values, spread)


def k_means_with_zero(values: Tensor, levels: Tensor, *, passes: int = 30) -> Tensor:
    """Lloyd's algorithm from `levels`, of which the one at 0 stays there.

    >>> start = torch.tensor([-0.5, 0.0, 0.5]).double()
    >>> k_means_with_zero(torch.tensor([-1.0, 0.1, 0.9, 1.1]).double(), start).tolist()
    [-1.0, 0.0, 1.0]
    """
    zero = int(levels.abs().argmin())
    values = values.contiguous()
    for _ in range(passes):
        index = torch.bucketize(values, ((levels[1:] + levels[:-1]) / 2).contiguous(), right=True)
        counts = torch.bincount(index, minlength=len(levels))
        means = torch.bincount(index, weights=values, minlength=len(levels)) / counts.clamp(min=1)
        moved = torch.where(counts > 0, means, levels)
        moved[zero] = 0.0
        if torch.equal(moved, levels):
            break
        levels = moved.sort().values
    return levels


def cuts_between(levels: Tensor, place: float) -> Tensor:
    """Cuts at `place` of the way from the level nearer to 0 to its neighbour.

    >>> cuts_between(torch.tensor([-2.0, 0.0, 1.0]), 0.75).tolist()
    [-1.5, 0.75]
    """
    below, above = levels[:-1], levels[1:]
    inner_first = below.abs() <= above.abs()
    return torch.where(inner_first, below + place * (above - below), above - place * (above - below))


def sampled(states: Tensor) -> Tensor:
    """At most `SAMPLES` values, or a few more, evenly taken."""
    flat = states.reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLES)].contiguous()


def _descended(best: Placed, move: float, judge: Judge) -> Placed:
    """Every level and cut once up and once down, as long as that helps."""
    levels, cuts = best.table
    for k in range(len(levels)):
        for sign in (1.0, -1.0):
            levels, cuts = best.table
            if float(levels[k]) != 0.0:
                best = _better(best, _moved(levels, k, sign * move), cuts, judge)
    for k in range(len(cuts)):
        for sign in (1.0, -1.0):
            levels, cuts = best.table
            changed = cuts.clone()
            changed[k] += sign * move * (levels[k + 1] - levels[k])
            best = _better(best, levels, changed.clamp(min=levels[0]), judge)
    return best


def _moved(levels: Tensor, k: int, share: float) -> Tensor:
    """Level `k` by a share of the distance to its neighbour (on the inner side), in order."""
    neighbour = k - 1 if float(levels[k]) > 0 else k + 1
    changed = levels.clone()
    changed[k] += share * (levels[k] - levels[neighbour]).abs()
    return changed.sort().values


def _better(best: Placed, levels: Tensor, cuts: Tensor, judge: Judge) -> Placed:
    table = (levels, cuts.sort().values)
    if all(torch.equal(a, b) for a, b in zip(table, best.table, strict=True)):
        return best
    error, rate = judge(table)
    return Placed(table, error, rate) if error < best.error else best

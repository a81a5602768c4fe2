"""The best bits for every budget at once, by merging Pareto lists (Nemhauser & Ullmann 1969)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spikequant.analyse.widths import Item, check_items, grouped, tables
from spikequant.law.errors import DataError

MOST_POINTS = 2_000_000


@dataclass(frozen=True)
class CurvePoint:
    """The best allocation for every budget from `load` up to the next point's."""

    load: float
    rise: float
    bits: dict[tuple[str, str], int]


def curve(items: Sequence[Item], load: str) -> list[CurvePoint]:
    """Every breakpoint: each allocation that is the best one for some budget of `load`, from the least load up.

    Raises:
        DataError: as in `solve`, or more than two million allocations are the best ones for some budget.
    """
    check_items(items, {load: 0.0})
    groups = grouped(items)
    used, rise = np.zeros(1), np.zeros(1)
    back: list[tuple[np.ndarray, np.ndarray]] = []
    for group in groups:
        loads, rises = tables(group, load)
        order, total, sums = _merged(used, rise, loads, rises)
        if len(total) > MOST_POINTS:
            raise DataError(
                f"the curve has more than {MOST_POINTS:,} points; tie layers together or offer fewer widths"
            )
        back.append((order // len(loads), order % len(loads)))
        used, rise = total, sums
    return [_point(groups, back, k, float(used[k]), float(rise[k])) for k in range(len(used))]


def _merged(
    used: np.ndarray, rise: np.ndarray, loads: np.ndarray, rises: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All sums of a list and a group's choices that no other one beats in both load and rise, by load."""
    total = (used[:, None] + loads[None, :]).reshape(-1)
    sums = (rise[:, None] + rises[None, :]).reshape(-1)
    order = np.lexsort((sums, total))
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(sums[order])[:-1]])
    kept = order[sums[order] < best_before]
    return kept, total[kept], sums[kept]


def _point(
    groups: Sequence[tuple[Item, ...]], back: Sequence[tuple[np.ndarray, np.ndarray]], k: int, load: float, rise: float
) -> CurvePoint:
    bits: dict[tuple[str, str], int] = {}
    for group, (before, picked) in zip(reversed(groups), reversed(back), strict=True):
        for item in group:
            bits[item.layer, item.role] = item.choices[int(picked[k])].bits
        k = int(before[k])
    return CurvePoint(load, rise, dict(reversed(bits.items())))

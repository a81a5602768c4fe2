"""Fronts of points whose every coordinate is to be small: which are on it, how much they cover, where it bends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

Points = npt.NDArray[np.float64]
MOST_OBJECTIVES = 5


def front(points: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Indices of the points that no other dominates, ascending; equal points are all kept.

    ``p dominates q  <=>  p_k <= q_k for all k, and p != q``

    Shapes: `points` ``[N, K]``, all K to be small (turn the sign of what is to be large).

    >>> front([[1, 5], [2, 2], [3, 3], [5, 1], [2, 2]]).tolist()
    [0, 1, 3, 4]

    Raises:
        DataError: not ``[N, K]`` with K from 1 to 5, or NaN.
    """
    p = _checked(points)
    if len(p) == 0:
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort(p.T[::-1])  # a point is dominated only by one that stands before it
    kept: list[int] = []
    for index in order:
        if not kept or not _is_dominated(p[index], p[kept]):
            kept.append(int(index))
    return np.array(sorted(kept), dtype=np.int64)


def _is_dominated(q: Points, others: Points) -> bool:
    below = (others <= q).all(axis=1)
    return bool((below & (others < q).any(axis=1)).any())


def hypervolume(points: npt.ArrayLike, reference: Sequence[float]) -> float:
    """Volume that the points dominate below a reference point; exact, for 1 to 5 objectives.

    ``volume(union_i [p_i, reference])``; points beyond the reference in any coordinate add nothing.

    Source: L. While, L. Bradstreet, L. Barone, "A fast way of calculating exact hypervolumes", IEEE Trans. Evol.
    Comp. 16, 2012 (WFG): the sum over points of what each dominates alone, from the worst of the first coordinate on.

    >>> hypervolume([[1, 3], [2, 2]], (4, 4))
    5.0

    Raises:
        DataError: points as in `front`, or a reference of another length, NaN or infinite.
    """
    p, r = _checked(points), np.asarray(reference, dtype=np.float64)
    if r.shape != p.shape[1:] or not np.isfinite(r).all():
        raise DataError(f"hypervolume: reference {reference}; expected {p.shape[1]} finite numbers")
    inside = p[(p < r).all(axis=1)]
    if not np.isfinite(inside).all():
        raise DataError("hypervolume: a point lies at minus infinity; its volume has no end")
    return _volume(np.unique(inside[front(inside)], axis=0), r)


def _volume(p: Points, r: Points) -> float:
    """Of points that do not dominate each other, sorted by the first coordinate."""
    if len(p) == 0:
        return 0.0
    if p.shape[1] == 1:
        return float(r[0] - p[:, 0].min())
    if p.shape[1] == 2:  # a staircase: y falls as x grows
        ends = np.append(p[1:, 0], r[0])
        return float(((ends - p[:, 0]) * (r[1] - p[:, 1])).sum())
    total = 0.0
    for k in range(len(p)):  # what p_k dominates beyond those behind it: a body of one height in the first coordinate
        others = np.maximum(p[:k, 1:], p[k, 1:])
        alone = float((r[1:] - p[k, 1:]).prod())
        if k:
            others = np.unique(others[front(others)], axis=0)
            alone -= _volume(others, r[1:])
        total += (r[0] - p[k, 0]) * alone
    return total


def knee(points: npt.ArrayLike) -> int:
    """Index of the point of the front where giving up a little of one objective no longer buys much of another.

    ``argmin_i sum_k (p_ik - min_k) / (max_k - min_k)`` over the front: the point that lies deepest below the plane
    through its extremes.  The first of several; an objective that is the same everywhere says nothing.

    Source: I. Das, "On characterizing the knee of the Pareto curve based on normal-boundary intersection", Structural
    Optimization 18, 1999.

    >>> knee([[0, 10], [1, 2], [9, 1], [10, 0], [10, 10]])
    1

    Raises:
        DataError: no point, or as in `front`.
    """
    p = _checked(points)
    if len(p) == 0:
        raise DataError("knee: there is no point; expected at least one")
    on = front(p)
    if not np.isfinite(p[on]).all():
        raise DataError("knee: an infinite objective has no middle; leave these points out")
    low, high = p[on].min(axis=0), p[on].max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return int(on[((p[on] - low) / span).sum(axis=1).argmin()])


def _checked(points: Any) -> Points:
    p = np.asarray(points, dtype=np.float64)
    if p.ndim != 2 or not 1 <= p.shape[1] <= MOST_OBJECTIVES:
        raise DataError(f"expected points [N, K] with 1 to {MOST_OBJECTIVES} objectives, got shape {list(p.shape)}")
    if np.isnan(p).any():
        raise DataError(f"point {int(np.isnan(p).any(axis=1).argmax())} holds NaN; leave it out or say what it costs")
    return p

"""One choice from every group within limits, exactly: a multiple-choice knapsack with any number of limits.

The integer program is made small before HiGHS sees it.  Groups that share no limit are solved apart.  For prices
``u_j >= 0`` of the limits, ``sum_k min_b (r[k, b] + sum_j u_j l_j[k, b]) - sum_j u_j L_j`` is below every allocation
that keeps them (the Lagrangian bound); a choice whose price stands above the least one of its group by more than a
known allocation stands above the bound is in no better one.  The prices are those of the linear program.

Source: Sinha and Zoltners 1979 (bounds of the multiple-choice knapsack); Pisinger 1995 (solving a core of it first).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SLACK = 1e-9
"""A limit counts as kept within this share of itself: sums of bits are rounded."""
MOST_CUTS = 200
"""Allocations beyond a limit by less than the tolerances of HiGHS that are forbidden one by one."""
RISE_RANGE = 1e4
"""HiGHS stops at an absolute gap of 1e-6; the largest rise is scaled to this, so the gap is 1e-10 of it."""
CORE = 3
"""Choices of a group, on average, in the program that is solved first."""
ROUNDING = 1e-12
"""Share of the sums of a bound that rounding may take from it."""

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Uncertain(Exception):
    """Too many allocations miss the limits by less than can be computed."""


@dataclass(frozen=True)
class Program:
    """Groups of choices one behind the other.

    Attributes:
        rises: of every choice ``[n]``.
        loads: ``[limits, n]``.
        most: of each limit.
        starts: where each group begins, and ``n``.
        scale: of the objective.
    """

    rises: Floats
    loads: Floats
    most: Floats
    starts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    scale: float

    @property
    def groups(self) -> int:
        """How many."""
        return len(self.starts) - 1

    def owners(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """The group of every choice."""
        return np.repeat(np.arange(self.groups), np.diff(self.starts))

    def keeps(self, picked: Sequence[int]) -> bool:
        """Whether these choices, given by their places, are within all limits, summed exactly."""
        used = [math.fsum(row[list(picked)]) for row in self.loads]
        return all(u <= m + abs(m) * SLACK for u, m in zip(used, self.most, strict=True))

    def only(self, kept: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Program:
        """The same with some of the choices; every group keeps at least one."""
        counts = np.bincount(self.owners()[kept], minlength=self.groups)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return Program(self.rises[kept], self.loads[:, kept], self.most, starts, self.scale)


def cheapest(rises: Sequence[Floats], loads: Sequence[Sequence[Floats]], most: Sequence[float]) -> list[int] | None:
    """The number of the choice in every group with the least sum of `rises` within all limits; None: there is none.

    Args:
        rises: by group, of each choice.
        loads: by limit, by group, of each choice.
        most: of each limit.

    Raises:
        Uncertain: see above.

    >>> rises = [np.array([1.0, 0.1]), np.array([0.2, 0.0])]
    >>> cheapest(rises, [[np.array([20.0, 40.0]), np.array([20.0, 40.0])]], [60.0])
    [1, 0]
    """
    used = [k for k, limit in enumerate(most) if math.isfinite(limit)]
    scale = max((float(np.abs(r).max()) for r in rises), default=0.0)
    picked = [int(np.argmin(r)) for r in rises]  # what no limit touches
    for members, limits in _apart(rises, [loads[k] for k in used]):
        part = Program(
            np.concatenate([rises[g] for g in members]),
            np.stack([np.concatenate([loads[used[j]][g] for g in members]) for j in limits]),
            np.array([most[used[j]] for j in limits]),
            np.concatenate([[0], np.cumsum([len(rises[g]) for g in members])]),
            max(scale, 1e-300) / RISE_RANGE,
        )
        found = _solved(part)
        if found is None:
            return None
        for group, place, start in zip(members, found, part.starts, strict=False):
            picked[group] = int(place - start)
    return picked


def _apart(rises: Sequence[Floats], loads: Sequence[Sequence[Floats]]) -> Iterator[tuple[list[int], list[int]]]:
    """Groups and limits that hang together; groups that no limit tells apart are left out."""
    left = {j: {g for g in range(len(rises)) if np.ptp(rows[g]) or rows[g].any()} for j, rows in enumerate(loads)}
    while left:
        first = next(iter(left))
        limits, members = [first], left.pop(first)
        while more := [j for j, groups in left.items() if groups & members]:
            for j in more:
                limits.append(j)
                members = members | left.pop(j)
        if members:
            yield sorted(members), sorted(limits)


def _solved(program: Program) -> list[int] | None:
    """Places of the choices."""
    prices = _prices(program)
    if prices is None:
        return None  # not even fractions of choices keep the limits
    total = program.rises + prices @ program.loads
    least = np.minimum.reduceat(total, program.starts[:-1])
    above = total - least[program.owners()]
    bound = float(least.sum() - prices @ program.most)
    size = float(np.abs(total).sum() + np.abs(prices * program.most).sum())
    first = np.sort(above)[min(CORE * program.groups, len(above)) - 1]
    found = _integer(program, above <= first)
    if found is None:
        return _integer(program, np.ones(len(above), bool))
    gap = math.fsum(program.rises[found]) - bound + size * ROUNDING
    return found if gap <= first else _integer(program, above <= gap)


def _prices(program: Program) -> Floats | None:
    """Of the limits, by the linear program: what a little more of each would take off the rise."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    unit = np.maximum(np.abs(program.loads).max(1), 1e-300)
    n = len(program.rises)
    one_each = csr_matrix((np.ones(n), (program.owners(), np.arange(n))), shape=(program.groups, n))
    with _quietly():
        found = linprog(
            program.rises / program.scale,
            A_ub=csr_matrix(program.loads / unit[:, None]),
            b_ub=(program.most + np.abs(program.most) * SLACK) / unit,
            A_eq=one_each,
            b_eq=np.ones(program.groups),
            bounds=(0, None),
            method="highs",
        )
    if found.status == 2:
        return None
    if found.x is None:  # any prices give a bound
        return np.zeros(len(program.most))
    prices: Floats = np.maximum(-found.ineqlin.marginals, 0.0) * program.scale / unit
    return prices


def _integer(program: Program, kept: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[int] | None:
    """The best of the choices that are kept, by HiGHS."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix, vstack

    small, places = program.only(kept), np.flatnonzero(kept)
    n, starts = len(small.rises), small.starts
    one_each = csr_matrix((np.ones(n), (small.owners(), np.arange(n))), shape=(small.groups, n))
    matrices, low, high = [one_each], [np.ones(small.groups)], [np.ones(small.groups)]
    for loads, most in zip(small.loads, small.most, strict=True):
        row, bound = _row(loads, starts, float(most))
        matrices.append(csr_matrix(row))
        low.append(np.array([-np.inf]))
        high.append(np.array([bound]))
    for _ in range(MOST_CUTS):
        with _quietly():
            found = milp(
                small.rises / small.scale,
                integrality=np.ones(n),
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(vstack(matrices), np.concatenate(low), np.concatenate(high)),
                options={"mip_rel_gap": 0.0},
            )
        if found.x is None:
            return None
        picked = [int(a + np.argmax(found.x[a:b])) for a, b in itertools.pairwise(starts)]
        if small.keeps(picked):
            return [int(places[p]) for p in picked]
        # Within HiGHS's tolerances, but not within the limits: exactly this allocation is forbidden.
        cut = np.zeros(n)
        cut[picked] = 1.0
        matrices.append(csr_matrix(cut))
        low.append(np.array([-np.inf]))
        high.append(np.array([small.groups - 1.0]))
    raise Uncertain


def _row(loads: Floats, starts: np.ndarray, most: float) -> tuple[Floats, float]:
    """A limit as HiGHS takes it, which compares with absolute tolerances: least loads off, whole numbers whole."""
    least = np.array([loads[a:b].min() for a, b in itertools.pairwise(starts)])
    above = loads - np.repeat(least, np.diff(starts))
    room = most + abs(most) * SLACK - float(least.sum())
    if np.all(above == np.rint(above)) and above.max() < 2**53:
        unit = max(math.gcd(*above.astype(np.int64).tolist()), 1)
        return above / unit, math.floor(room / unit) + 0.5
    largest = max(float(above.max()), 1e-300)
    return above / largest, room / largest


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Nothing on standard output: HiGHS prints remarks of its developers there, past Python."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # a program without standard output
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)

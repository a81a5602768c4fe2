"""Bits under limits, exactly: one width for every layer and role, so that the expected rise of the loss is least.

    minimise   sum_k sum_b rise[k, b] x[k, b]
    such that  sum_b x[k, b] = 1                        for every item k
               sum_k sum_b load_j[k, b] x[k, b] <= L_j  for every limit j
               x[k, b] in {0, 1}

The integer program of HAWQ-V3 (Yao et al. 2021, section 3.4) with any number of limits, solved by HiGHS
(`scipy.optimize.milp`) until the gap to the optimum is proven below 1e-10 of the largest rise.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spikequant.analyse.widths import Choice, Item, check_items, grouped, tables
from spikequant.law.errors import PlanError

SLACK = 1e-9
"""A limit counts as kept within this share of itself: sums of bits are rounded."""
MOST_CUTS = 200
"""Allocations beyond a limit by less than the tolerances of HiGHS that are forbidden one by one."""
RISE_RANGE = 1e4
"""HiGHS stops at an absolute gap of 1e-6; the largest rise is scaled to this, so the gap is 1e-10 of it."""

__all__ = ["Allocation", "Choice", "Item", "solve"]


@dataclass(frozen=True)
class Allocation:
    """A width for every item.

    Attributes:
        bits: by ``(layer, role)``.
        rise: expected rise of the loss in total.
        loads: what is used of each limit.
        reasons: one sentence an item: what one step more or less would change.
    """

    bits: dict[tuple[str, str], int]
    rise: float
    loads: dict[str, float]
    reasons: dict[tuple[str, str], str]


def solve(items: Sequence[Item], limits: Mapping[str, float]) -> Allocation:
    """The allocation with the least rise within all limits.

    Args:
        items: layers and roles with their choices.
        limits: the most of each load.

    Raises:
        DataError: no items, no choices, a rise or load that is not finite, a limit that no choice mentions.
        PlanError: no allocation keeps the limits; says what each limit needs at least.

    >>> narrow, wide = Choice(2, 1.0, {"flash": 20}), Choice(4, 0.1, {"flash": 40})
    >>> other = Choice(2, 0.2, {"flash": 20})
    >>> found = solve([Item("a", "weight", (narrow, wide)), Item("b", "weight", (other, wide))], {"flash": 60})
    >>> found.bits, found.loads
    ({('a', 'weight'): 4, ('b', 'weight'): 2}, {'flash': 60.0})
    """
    check_items(items, limits)
    groups = grouped(items)
    _check_reachable(groups, limits)
    picked = _solve(groups, limits)
    if picked is None:
        raise PlanError(
            f"no choice of bits keeps all of {_told(limits)} together, though each alone can be kept; raise one of them"
        )
    return _allocation(groups, picked, limits)


def _check_reachable(groups: Sequence[tuple[Item, ...]], limits: Mapping[str, float]) -> None:
    for name, most in limits.items():
        least = sum(float(tables(group, name)[0].min()) for group in groups)
        if least > most * (1 + SLACK):
            raise PlanError(
                f"the limit {name} = {most:,.6g} cannot be kept: with the fewest bits that are allowed everywhere, "
                f"{least:,.6g} are needed"
            )


def _solve(groups: Sequence[tuple[Item, ...]], limits: Mapping[str, float]) -> list[int] | None:
    """The index of each group's width; None if nothing keeps all limits."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix, vstack

    counts = [len(group[0].choices) for group in groups]
    starts = np.concatenate([[0], np.cumsum(counts)])
    rises = np.concatenate([tables(group, "")[1] for group in groups])
    rows = np.repeat(np.arange(len(groups)), counts)
    one_each = csr_matrix((np.ones(starts[-1]), (rows, np.arange(starts[-1]))), shape=(len(groups), starts[-1]))
    finite = {name: most for name, most in limits.items() if math.isfinite(most)}
    matrices, low, high = [one_each], [np.ones(len(groups))], [np.ones(len(groups))]
    for name, most in finite.items():
        loads = np.concatenate([tables(group, name)[0] for group in groups])
        row, bound = _row(loads, starts, most)
        matrices.append(csr_matrix(row))
        low.append(np.array([-np.inf]))
        high.append(np.array([bound]))
    scale = max(float(np.abs(rises).max()), 1e-300) / RISE_RANGE
    for _ in range(MOST_CUTS):
        with _quietly():
            found = milp(
                rises / scale,
                integrality=np.ones(starts[-1]),
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(vstack(matrices), np.concatenate(low), np.concatenate(high)),
                options={"mip_rel_gap": 0.0},
            )
        if found.x is None:
            return None
        picked = [int(np.argmax(found.x[a:b])) for a, b in itertools.pairwise(starts)]
        if _keeps(groups, picked, finite):
            return picked
        # Within HiGHS's tolerances, but not within the limits: exactly this allocation is forbidden.
        cut = np.zeros(starts[-1])
        cut[starts[:-1] + np.array(picked)] = 1.0
        matrices.append(csr_matrix(cut))
        low.append(np.array([-np.inf]))
        high.append(np.array([len(groups) - 1.0]))
    raise PlanError(
        f"the {MOST_CUTS} best allocations miss {_told(limits)} by less than can be computed; move the limit a little"
    )


def _keeps(groups: Sequence[tuple[Item, ...]], picked: Sequence[int], limits: Mapping[str, float]) -> bool:
    """Whether an allocation is within all limits, summed exactly."""
    for name, most in limits.items():
        used = math.fsum(float(tables(group, name)[0][k]) for group, k in zip(groups, picked, strict=True))
        if used > most + abs(most) * SLACK:
            return False
    return True


def _row(loads: np.ndarray, starts: np.ndarray, most: float) -> tuple[np.ndarray, float]:
    """A limit as HiGHS takes it, which compares with absolute tolerances: least loads off, whole numbers whole."""
    least = np.array([loads[a:b].min() for a, b in itertools.pairwise(starts)])
    above = loads - np.repeat(least, np.diff(starts))
    room = most + abs(most) * SLACK - float(least.sum())
    if np.all(above == np.rint(above)) and above.max() < 2**53:
        unit = max(math.gcd(*above.astype(np.int64).tolist()), 1)
        return above / unit, math.floor(room / unit) + 0.5
    largest = max(float(above.max()), 1e-300)
    return above / largest, room / largest


def _allocation(groups: Sequence[tuple[Item, ...]], picked: Sequence[int], limits: Mapping[str, float]) -> Allocation:
    names = sorted({load for group in groups for item in group for c in item.choices for load in c.loads})
    bits, reasons, rise = {}, {}, 0.0
    loads = dict.fromkeys(names, 0.0)
    for group, k in zip(groups, picked, strict=True):
        for item in group:
            chosen = item.choices[k]
            bits[item.layer, item.role] = chosen.bits
            rise += chosen.rise
            for name in names:
                loads[name] += chosen.loads.get(name, 0.0)
    for group, k in zip(groups, picked, strict=True):
        text = _reason(group, k, limits, loads)
        reasons.update({(item.layer, item.role): text for item in group})
    return Allocation(bits, rise, loads, reasons)


def _reason(group: tuple[Item, ...], k: int, limits: Mapping[str, float], used: Mapping[str, float]) -> str:
    """What the neighbouring widths would change."""
    choices = group[0].choices
    total = [sum(item.choices[j].rise for item in group) for j in range(len(choices))]
    parts = [f"{choices[k].bits} bits, expected rise {total[k]:.3g}"]
    if k > 0:
        saved = _differences(group, k, k - 1, limits)
        parts.append(f"{choices[k - 1].bits} bits would add {total[k - 1] - total[k]:.3g}{saved}")
    if k + 1 < len(choices):
        gain, over = total[k] - total[k + 1], _exceeded(group, k, limits, used)
        parts.append(f"{choices[k + 1].bits} bits would take off {gain:.3g}{f', but {over}' if over else ''}")
    tied = f"; tied: {', '.join(item.name for item in group)}" if len(group) > 1 else ""
    return "; ".join(parts) + tied


def _differences(group: tuple[Item, ...], k: int, j: int, limits: Mapping[str, float]) -> str:
    parts = []
    for name in limits:
        loads = tables(group, name)[0]
        if loads[k] != loads[j]:
            parts.append(f"{loads[k] - loads[j]:,.6g} {name}")
    return f" and save {', '.join(parts)}" if parts else ""


def _exceeded(group: tuple[Item, ...], k: int, limits: Mapping[str, float], used: Mapping[str, float]) -> str:
    for name, most in limits.items():
        loads = tables(group, name)[0]
        if used[name] + loads[k + 1] - loads[k] > most * (1 + SLACK):
            return f"{name} would be {used[name] + loads[k + 1] - loads[k]:,.6g} of {most:,.6g}"
    return ""


def _told(limits: Mapping[str, float]) -> str:
    return " and ".join(f"{name} <= {most:,.6g}" for name, most in limits.items())


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

"""Bits under limits, exactly: one width for every layer and role, so that the expected rise of the loss is least.

    minimise   sum_k sum_b rise[k, b] x[k, b]
    such that  sum_b x[k, b] = 1                        for every item k
               sum_k sum_b load_j[k, b] x[k, b] <= L_j  for every limit j
               x[k, b] in {0, 1}

The integer program of HAWQ-V3 (Yao et al. 2021, section 3.4) with any number of limits, solved by HiGHS
(`scipy.optimize.milp`, made small by `integer_program`) until the gap to the optimum is proven below 1e-10 of the
largest rise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spikequant.analyse.integer_program import MOST_CUTS, SLACK, Uncertain, cheapest
from spikequant.analyse.widths import Choice, Item, check_items, grouped, tables
from spikequant.law.errors import PlanError

__all__ = ["Allocation", "Choice", "Item", "allocation_of", "solve"]


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
    return allocation_of(groups, picked, limits)


def _check_reachable(groups: Sequence[tuple[Item, ...]], limits: Mapping[str, float]) -> None:
    least = {name: sum(float(tables(group, name)[0].min()) for group in groups) for name in limits}
    lost = [
        f"the limit {name} = {most:,.6g} cannot be kept: with the fewest bits that are allowed everywhere, "
        f"{least[name]:,.6g} are needed"
        for name, most in limits.items()
        if least[name] > most * (1 + SLACK)
    ]
    if lost:
        raise PlanError("; ".join(lost))


def _solve(groups: Sequence[tuple[Item, ...]], limits: Mapping[str, float]) -> list[int] | None:
    """The index of each group's width; None if nothing keeps all limits."""
    rises = [tables(group, "")[1] for group in groups]
    loads = [[tables(group, name)[0] for group in groups] for name in limits]
    try:
        return cheapest(rises, loads, list(limits.values()))
    except Uncertain:
        raise PlanError(
            f"the {MOST_CUTS} best allocations miss {_told(limits)} by less than can be computed; move the limit a "
            "little"
        ) from None


def allocation_of(groups: Sequence[tuple[Item, ...]], picked: Sequence[int], limits: Mapping[str, float]) -> Allocation:
    """The record of a choice: the number of the width of every group, told within the limits."""
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
        parts.append(f"{choices[k - 1].bits} bits would {_moved(total[k - 1] - total[k])}{saved}")
    if k + 1 < len(choices):
        rise, over = total[k + 1] - total[k], _exceeded(group, k, limits, used)
        but = f", {'but' if rise < 0 else 'and'} {over}" if over else ""
        parts.append(f"{choices[k + 1].bits} bits would {_moved(rise)}{but}")
    tied = f"; tied: {', '.join(item.name for item in group)}" if len(group) > 1 else ""
    return "; ".join(parts) + tied


def _moved(rise: float) -> str:
    """A change of the expected rise in words; measured rises do not always fall with more bits."""
    return "change nothing" if rise == 0 else f"add {rise:.3g}" if rise > 0 else f"take off {-rise:.3g}"


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

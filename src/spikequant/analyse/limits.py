"""Budgets as they are written, in bits: shares of the float network, bytes, limits by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

from spikequant.analyse.layer_facts import Facts
from spikequant.law.errors import DataError, PlanError

REAL_BITS = 32
LOADS = ("flash", "ram", "memory", "synop_bits")
Budget = str | float | Mapping[str, str | float]


def requested_bits(budget: Budget, facts: Facts) -> dict[str, float]:
    """The most of every load that the budget names, in bits.

    Raises:
        DataError: an unknown load.
        PlanError: a limit that is neither ``"0.1x"`` nor a positive number of bytes.
    """
    named = dict(budget) if isinstance(budget, Mapping) else {"memory": budget}
    if not named:
        raise PlanError(f"allocate: a budget without a limit; expected some of {', '.join(LOADS)}")
    return {name: _bits(name, asked, facts) for name, asked in named.items()}


def _bits(name: str, asked: str | float, facts: Facts) -> float:
    """A limit in bits: ``"0.1x"`` of the float network, or bytes."""
    whole = {
        "flash": facts.float_flash,
        "ram": facts.float_ram,
        "memory": facts.float_flash + facts.float_ram,
        "synop_bits": REAL_BITS * sum(row.operations for row in facts.rows),
    }
    if name not in whole:
        raise DataError(f"allocate: unknown limit {name!r}; expected some of {', '.join(LOADS)}")
    try:
        if isinstance(asked, str):
            if not asked.endswith("x"):
                raise ValueError
            value = float(asked[:-1]) * whole[name]
        else:
            value = float(asked) * (1 if name == "synop_bits" else 8)
    except (ValueError, TypeError):
        value = math.nan
    if not value > 0:
        raise PlanError(
            f"allocate: {name} = {asked!r}; expected '0.1x' (of the float network) or a positive number of bytes"
        )
    return value


def unreachable(asked: Mapping[str, float], least: Mapping[str, float], stays: Mapping[str, float]) -> PlanError:
    """What to raise where the fewest bits take more than was asked for: all in bits, told in bytes.

    Every limit that is exceeded is named, by load: what was asked for, what is needed, how much of it has no choice.
    """
    clauses = [_clause(name, asked[name], least[name], stays[name]) for name in asked if least[name] > asked[name]]
    return PlanError(f"allocate: {'; '.join(clauses)}")


def _clause(name: str, asked: float, least: float, stays: float) -> str:
    unit, per = ("synop_bits", 1) if name == "synop_bits" else ("bytes", 8)
    rest = (
        f", {stays / per:,.0f} of them without a choice (thresholds, biases, buffers, layers kept)" if stays > 0 else ""
    )
    return (
        f"a budget of {asked / per:,.0f} {unit} of {name} cannot be kept: with the fewest bits that are allowed "
        f"everywhere, {math.ceil(least / per):,} are needed{rest}"
    )

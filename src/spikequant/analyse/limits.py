"""Budgets as they are written, in bits or pJ: shares of the float network, bytes, limits by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

from spikequant.analyse.layer_facts import Facts
from spikequant.analyse.recount import LOADS
from spikequant.law.errors import DataError, PlanError

Budget = str | float | Mapping[str, str | float]
UNITS = {"synop_bits": ("", 1), "energy": ("pJ", 1)}
"""How a load is told, and how many of its own (bits, pJ) make one of that; bytes if it is not here."""


def unit(name: str) -> tuple[str, int]:
    """The unit in which a load is asked for and told, and how many bits (or pJ) it is.

    >>> unit("energy"), unit("flash")
    (('pJ', 1), ('B', 8))
    """
    return UNITS.get(name, ("B", 8))


def requested_bits(budget: Budget, facts: Facts) -> dict[str, float]:
    """The most of every load that the budget names, in bits; of energy in pJ.

    Raises:
        DataError: an unknown load.
        PlanError: a limit that is neither ``"0.1x"`` nor a positive number of bytes (pJ for energy).
    """
    named = dict(budget) if isinstance(budget, Mapping) else {"memory": budget}
    if not named:
        raise PlanError(f"allocate: a budget without a limit; expected some of {', '.join(LOADS)}")
    return {name: _bits(name, asked, facts) for name, asked in named.items()}


def _bits(name: str, asked: str | float, facts: Facts) -> float:
    """A limit in bits or pJ: ``"0.1x"`` of the float network, or bytes."""
    if name not in LOADS:
        raise DataError(f"allocate: unknown limit {name!r}; expected some of {', '.join(LOADS)}")
    try:
        if isinstance(asked, bool):
            raise TypeError
        if isinstance(asked, str):
            if not asked.endswith("x"):
                raise ValueError
            value = float(asked[:-1]) * facts.real.of(name)
        else:
            value = float(asked) * unit(name)[1]
    except (ValueError, TypeError):
        value = math.nan
    if not value > 0:
        of = {"B": " of bytes", "pJ": " of picojoules"}.get(unit(name)[0], "")
        raise PlanError(
            f"allocate: {name} = {asked!r}; expected '0.1x' (of the float network) or a positive number{of}"
        )
    return value


def together(asked: Mapping[str, float]) -> PlanError:
    """What to raise where each limit can be kept, but not all of them."""
    told = " and ".join(f"{most / unit(name)[1]:,.0f} {unit(name)[0]} of {name}" for name, most in asked.items())
    return PlanError(
        f"allocate: no choice of bits keeps {told} together, though each alone can be kept; raise one of them"
    )


def unreachable(asked: Mapping[str, float], least: Mapping[str, float], stays: Mapping[str, float]) -> PlanError:
    """What to raise where the least there is exceeds what was asked for: all in bits, told in bytes (energy in pJ).

    Every limit that is exceeded is named, by load: what was asked for, what is needed, how much of it has no choice.
    """
    clauses = [_clause(name, asked[name], least[name], stays[name]) for name in asked if least[name] > asked[name]]
    return PlanError(f"allocate: {'; '.join(clauses)}")


def _clause(name: str, asked: float, least: float, stays: float) -> str:
    short, per = unit(name)
    what = {
        "synop_bits": "layers without a choice of bits",
        "energy": "operations, buffers, layers without a choice of bits",
    }.get(name, "thresholds, biases, buffers, layers kept")
    rest = f", {stays / per:,.0f} of them without a choice ({what})" if stays > 0.5 * per else ""
    told = {"B": "bytes"}.get(short, short) or name
    return (
        f"a budget of {asked / per:,.0f} {told} of {name} cannot be kept: with the bits that are allowed, at least "
        f"{math.ceil(least / per):,} are needed{rest}"
    )

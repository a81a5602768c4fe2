"""What an allocation of bits chooses from: items, their widths, what each costs; and items tied together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np

from spikequant.law.errors import DataError, PlanError

MOST_BITS = {"weight": 16, "membrane": 32}


def is_whole(bits: object) -> bool:
    """Whether it is a whole number, of numpy or not.

    >>> is_whole(np.int64(4)), is_whole(4.0), is_whole(True)
    (True, False, False)
    """
    return isinstance(bits, Integral) and not isinstance(bits, bool)


def whole_widths(role: str, given: Iterable[int]) -> list[int]:
    """The widths that were asked for, each once, ascending.

    >>> whole_widths("weight", (8, 2, 8))
    [2, 8]

    Raises:
        PlanError: no whole bits, or more than a role can have.
    """
    widths: set[object] = set(given) if isinstance(given, Iterable) else {None}
    found = sorted(int(bits) for bits in widths if isinstance(bits, Integral) and is_whole(bits))
    if len(found) < len(widths) or not all(1 <= bits <= MOST_BITS[role] for bits in found):
        raise PlanError(f"{role}_widths={given!r}; expected whole bits, 1 to {MOST_BITS[role]}, such as (2, 4, 8)")
    return found


@dataclass(frozen=True)
class Choice:
    """One width of an item.

    Attributes:
        bits: the width.
        rise: expected rise of the loss with this width.
        loads: what it takes of each limit, such as ``{"flash": bits, "ram": bits}``; absent means 0.
    """

    bits: int
    rise: float
    loads: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One layer in one role, and the widths that it may have.  Items with the same `tied` name get the same bits."""

    layer: str
    role: str
    choices: tuple[Choice, ...]
    tied: str | None = None

    @property
    def name(self) -> str:
        """Layer and role."""
        return f"{self.layer} {self.role}"


def grouped(items: Sequence[Item]) -> list[tuple[Item, ...]]:
    """Items that share their bits, together; their choices cut down to the widths that all of them have."""
    by_name: dict[str, list[Item]] = {}
    for item in items:
        by_name.setdefault(f"tied {item.tied}" if item.tied is not None else f"item {item.name}", []).append(item)
    return [_common(group) for group in by_name.values()]


def _common(group: Sequence[Item]) -> tuple[Item, ...]:
    widths = set.intersection(*({c.bits for c in item.choices} for item in group))
    if not widths:
        raise PlanError(f"{', '.join(i.name for i in group)} are tied, and no width is allowed for all of them")
    cut = []
    for item in group:
        kept = {c.bits: c for c in item.choices if c.bits in widths}
        cut.append(Item(item.layer, item.role, tuple(kept[bits] for bits in sorted(kept)), item.tied))
    return tuple(cut)


def tables(group: tuple[Item, ...], load: str) -> tuple[np.ndarray, np.ndarray]:
    """Load and rise of each width of a group, summed over its items."""
    loads = np.sum([[c.loads.get(load, 0.0) for c in item.choices] for item in group], axis=0)
    return loads, np.sum([[c.rise for c in item.choices] for item in group], axis=0)


def check_items(items: Sequence[Item], limits: Mapping[str, float]) -> None:
    """Raise what is wrong with them."""
    if not items:
        raise DataError("allocate: no layers to choose bits for")
    seen: set[tuple[str, str]] = set()
    for item in items:
        if (item.layer, item.role) in seen:
            raise DataError(f"allocate: {item.name} is given twice")
        seen.add((item.layer, item.role))
        if not item.choices:
            raise PlanError(f"allocate: {item.name} has no width to choose from")
        for c in item.choices:
            if not all(math.isfinite(v) for v in (c.rise, *c.loads.values())):
                raise DataError(
                    f"allocate: {item.name} at {c.bits} bits: rise {c.rise}, loads {dict(c.loads)}; not finite"
                )
    known = {load for item in items for c in item.choices for load in c.loads}
    for name, most in limits.items():
        if name not in known:
            raise DataError(f"allocate: no layer has a load {name!r}; expected some of {', '.join(sorted(known))}")
        if math.isnan(most):
            raise DataError(f"allocate: the limit {name} is NaN")

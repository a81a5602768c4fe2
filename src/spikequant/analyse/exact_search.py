"""The best bits within limits, exactly: counted as far as it needs, until nothing uncounted can be better.

Each round solves the integer program over the combinations of all parts (`parts`), in which what was not counted takes
the least that it can.  If all that it picks was counted, nothing within the limits is better.  If not, a copy is
quantized so and counted, and the next round knows more.  Every round counts at least one combination, so there are at
most as many rounds as combinations of widths in the network; a copy counts one of every part, so that networks of many
parts need about as many rounds as small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spikequant.analyse.allocator import Allocation, allocation_of
from spikequant.analyse.limits import together, unreachable
from spikequant.analyse.parts import Knob, NotApart, Part, Picked, best, parts_of, taken
from spikequant.analyse.recount import LOADS, Recount, Stored, stored_of
from spikequant.analyse.widths import Item, grouped
from spikequant.law.errors import PlanError, Unsupported, WidthError
from spikequant.measure import MemoryRow
from spikequant.plan import Plan

MOST_COUNTS = 200
"""Quantized copies that one search counts; nearly always some tens settle it."""
STARTS = (8, 4, 2)
"""Widths near which the first copy is counted: the first one that the network can be quantized to."""
ENOUGH = 1e-12
"""Rises that differ by a smaller share are the same: sums in another order."""


@dataclass(frozen=True)
class Held:
    """An allocation with its plan and what it takes.

    Attributes:
        proven: nothing better is within the limits.
    """

    allocation: Allocation
    plan: Plan
    stored: Stored
    proven: bool = False


class ExactSearch:
    """One search for bits within limits.

    Args:
        items: layers and roles with their choices.
        requested: the most of each load, in bits (energy: pJ), all of the network counted.
        plan_of: the plan of bits by layer and role.
        recount: counts a plan.

    Raises:
        NotApart: the network has no parts that can be counted one by one.
    """

    def __init__(
        self,
        items: Sequence[Item],
        requested: Mapping[str, float],
        plan_of: Callable[[Mapping[tuple[str, str], int]], Plan],
        recount: Recount,
    ) -> None:
        self.knobs: list[Knob] = grouped(items)
        self.requested, self.plan_of, self.recount = dict(requested), plan_of, recount
        self.counts = 0
        bits, rows, groups = self._first()
        self.parts = parts_of(self.knobs, groups)
        self.base = tuple(part.nearest(self.knobs, bits) for part in self.parts)
        owned = frozenset[str]().union(*(part.paths for part in self.parts))
        self.others = stored_of([row for row in rows if row.layer not in owned], recount.work.without(owned))
        self.known = recount.known.setdefault(self._besides(), {})
        """What earlier searches with plans that differ in bits alone have counted."""
        self._add(self.base, rows)
        for part in self.parts:
            for k in range(len(part.rises)):
                if (found := self.known.get(part.named(self.knobs, k))) is not None:
                    part.add(k, *found)

    @property
    def room(self) -> dict[str, float]:
        """What is left for the parts."""
        return {name: most - self.others.of(name) for name, most in self.requested.items()}

    def search(self) -> Held:
        """The allocation with the least rise within the limits.

        Raises:
            PlanError: there is none; says what each limit needs at least.
            NotApart, Uncertain: as `parts` says.
        """
        proven = False
        while True:
            picked = best(self.parts, self.room, only_counted=False)
            if picked is None:
                raise self._unreachable()
            if all(part.counted[k] for part, k in zip(self.parts, picked, strict=True)):
                return self._held(picked, proven=True)
            known = best(self.parts, self.room, only_counted=True)
            proven = known is not None and self._rise(known) <= self._rise(picked) * (1 + ENOUGH)
            if proven or self.counts >= MOST_COUNTS:
                break
            self._count(picked)
        if known is None:
            raise NotApart
        return self._held(known, proven=proven)

    def _first(self) -> tuple[int, tuple[MemoryRow, ...], list[frozenset[str]]]:
        """The width near which a copy can be quantized, and what it takes.

        Raises:
            WidthError, Unsupported: none can be; that of the first.
        """
        refused: list[WidthError | Unsupported] = []
        for bits in STARTS:
            near = [int(np.argmin([abs(choice.bits - bits) for choice in knob[0].choices])) for knob in self.knobs]
            try:
                return bits, *self.recount.look(self._plan(near))
            except (WidthError, Unsupported) as error:
                refused.append(error)
        raise refused[0]

    def _indices(self, picked: Picked) -> list[int]:
        """The width of every knob."""
        found = [0] * len(self.knobs)
        for part, combination in zip(self.parts, picked, strict=True):
            for knob, index in zip(part.knobs, part.index[combination], strict=True):
                found[knob] = int(index)
        return found

    def _plan(self, indices: Sequence[int]) -> Plan:
        pairs = zip(self.knobs, indices, strict=True)
        return self.plan_of({(i.layer, i.role): i.choices[k].bits for knob, k in pairs for i in knob})

    def _besides(self) -> str:
        """All that the plans say besides bits."""
        return self.plan_of({(i.layer, i.role): STARTS[0] for knob in self.knobs for i in knob}).to_toml()

    def _rise(self, picked: Picked) -> float:
        return sum(float(part.rises[k]) for part, k in zip(self.parts, picked, strict=True))

    def _count(self, picked: Picked) -> None:
        """Count the combinations; those that cannot be quantized are found one by one and struck out."""
        asked = tuple(self._instead(part, k) for part, k in zip(self.parts, picked, strict=True))
        if self._can_be(asked):
            return
        for number, (part, k) in enumerate(zip(self.parts, asked, strict=True)):
            if part.counted[k]:
                continue
            alone = (*self.base[:number], k, *self.base[number + 1 :])
            part.possible[k] = self._can_be(alone)

    def _instead(self, part: Part, k: int) -> int:
        """The combination, or, where it was counted, the best one that may fit in its place and was not."""
        if not part.counted[k]:
            return k
        fits = part.possible & ~part.counted & (part.rises < part.rises[k])
        for name in self.requested:
            fits &= part.low[name] <= part.low[name][k]
        return int(np.where(fits, part.rises, np.inf).argmin()) if fits.any() else k

    def _can_be(self, picked: Picked) -> bool:
        """Whether the network can be quantized so; it is counted then."""
        self.counts += 1
        try:
            rows = self.recount.rows(self._plan(self._indices(picked)))
        except (WidthError, Unsupported):
            return False
        self._add(picked, rows)
        return True

    def _add(self, picked: Picked, rows: Sequence[MemoryRow]) -> None:
        for part, k in zip(self.parts, picked, strict=True):
            found = taken(rows, self.recount.work, part.paths)
            part.add(k, *found)
            self.known[part.named(self.knobs, k)] = found

    def _held(self, picked: Picked, *, proven: bool) -> Held:
        """The allocation, counted as a whole."""
        indices = self._indices(picked)
        plan = self._plan(indices)
        stored = self.recount(plan)
        for name in LOADS:
            found = self.others.of(name) + sum(p.low[name][k] for p, k in zip(self.parts, picked, strict=True))
            if abs(found - stored.of(name)) > 1e-9 * max(abs(found), 1.0):
                raise NotApart
        chosen = {n: sum(p.chosen[n][k] for p, k in zip(self.parts, picked, strict=True)) for n in self.requested}
        limits = {n: most - (stored.of(n) - chosen[n]) for n, most in self.requested.items()}
        return Held(allocation_of(self.knobs, indices, limits), plan, stored, proven)

    def _unreachable(self) -> PlanError:
        """What each limit needs at least, counted."""
        least, stays = {}, {}
        for name in self.requested:
            picked = self._least(name)
            pairs = list(zip(self.parts, picked, strict=True))
            least[name] = self.others.of(name) + sum(float(part.low[name][k]) for part, k in pairs)
            stays[name] = least[name] - sum(float(part.chosen[name][k]) for part, k in pairs)
        if all(least[name] <= most for name, most in self.requested.items()):
            return together(self.requested)
        return unreachable(self.requested, least, stays)

    def _least(self, load: str) -> Picked:
        """The combinations that take the least of a load."""
        while True:
            found = [np.where(part.possible, part.low[load], np.inf) for part in self.parts]
            picked = tuple(int(values.argmin()) for values in found)
            if all(part.counted[k] for part, k in zip(self.parts, picked, strict=True)):
                return picked
            self._count(picked)

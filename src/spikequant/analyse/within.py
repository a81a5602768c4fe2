"""Bits inside a budget that holds, where they cannot be searched exactly (`exact_search`): quantized and counted.

What has no choice of bits (thresholds, biases, gains) still takes a number of bits that follows from the choices of
its layer, so it is known only after quantizing.  Each round solves the integer program with what the last round
counted, and the best allocation whose counted size is within the budget is kept.  Where none of these holds, the
limits are drawn in, twice as far each time, down to the fewest bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from spikequant.analyse.allocator import solve
from spikequant.analyse.exact_search import Held
from spikequant.analyse.integer_program import SLACK
from spikequant.analyse.limits import unreachable
from spikequant.analyse.recount import LOADS, Recount
from spikequant.analyse.widths import Item, grouped, tables
from spikequant.law.errors import PlanError
from spikequant.plan import Plan

ROUNDS = 8
"""Solutions with what the one before counted; nearly always two or three settle it."""
FIRST_STEP = 1e-3
"""By which share of themselves the limits are drawn in at first."""


class Within:
    """One search for bits within limits.

    Args:
        items: layers and roles with their choices.
        requested: the most of each load, in bits (energy: pJ), all of the network counted.
        fixed: a first guess at what has no choice, by load.
        plan_of: the plan of bits by layer and role.
        recount: counts a plan.
    """

    def __init__(
        self,
        items: Sequence[Item],
        requested: Mapping[str, float],
        fixed: Mapping[str, float],
        plan_of: Callable[[Mapping[tuple[str, str], int]], Plan],
        recount: Recount,
    ) -> None:
        self.items, self.requested, self.guess = items, dict(requested), dict(fixed)
        self.plan_of, self.recount = plan_of, recount
        self._counted: dict[tuple[int, ...], Held] = {}
        self._best: Held | None = None

    def search(self) -> Held:
        """The allocation with the least rise that was found to hold.

        Raises:
            PlanError: the fewest bits take more than was asked for; says how much.
        """
        fixed = self.guess
        for _ in range(ROUNDS):
            seen = len(self._counted)
            room = self._room(fixed)
            if not self._can(room):
                break
            fixed = self._rest(self._tried(room))
            if len(self._counted) == seen:  # the same bits again
                break
        return self._best if self._best is not None else self._drawn_in()

    def _drawn_in(self) -> Held:
        """Nothing held: allow less and less, down to the fewest bits."""
        # Flash also follows from the bits of membranes, so fewest means of every load, not of those asked for alone.
        ends = [self._tried({name: self._least(name) for name in names}) for names in (self.requested, LOADS)]
        if self._best is None:
            raise self._unreachable(min(ends, key=self._excess))
        step = FIRST_STEP
        while True:
            rest = [self._rest(held) for held in self._counted.values()]
            highest = {name: max(one[name] for one in rest) for name in self.requested}
            room = {name: most - step * self.requested[name] for name, most in self._room(highest).items()}
            if not self._can(room) or self._holds(self._tried(room)):
                return self._best
            step *= 2

    def _tried(self, room: dict[str, float]) -> Held:
        """Solve, quantize, count; each allocation is counted once."""
        varying = {load for item in self.items for choice in item.choices for load in choice.loads}
        found = solve(self.items, {name: most for name, most in room.items() if name in varying})
        key = tuple(found.bits.values())
        if key not in self._counted:
            plan = self.plan_of(found.bits)
            held = Held(found, plan, self.recount(plan))
            self._counted[key] = held
            if self._holds(held) and (self._best is None or found.rise < self._best.allocation.rise):
                self._best = held
        return self._counted[key]

    def _rest(self, held: Held) -> dict[str, float]:
        """What is taken beyond what was chosen, by load."""
        rest = {}
        for name in self.requested:
            rest[name] = held.stored.of(name) - held.allocation.loads.get(name, 0.0)
        return rest

    def _room(self, fixed: Mapping[str, float]) -> dict[str, float]:
        return {name: most - fixed.get(name, 0.0) for name, most in self.requested.items()}

    def _holds(self, held: Held) -> bool:
        rest, loads = self._rest(held), held.allocation.loads
        return all(rest[name] + loads.get(name, 0.0) <= most * (1 + SLACK) for name, most in self.requested.items())

    def _excess(self, held: Held) -> float:
        """By which share of a limit more than was asked for is taken, all limits together."""
        rest, loads = self._rest(held), held.allocation.loads
        used = {name: rest[name] + loads.get(name, 0.0) for name in self.requested}
        return sum(max(0.0, used[name] / most - 1) for name, most in self.requested.items())

    def _least(self, name: str) -> float:
        return sum(float(tables(group, name)[0].min()) for group in grouped(self.items))

    def _can(self, room: Mapping[str, float]) -> bool:
        """Whether each limit alone can be kept."""
        return all(self._least(name) <= most for name, most in room.items())

    def _unreachable(self, least: Held) -> PlanError:
        """That even the fewest bits take more, with what they take."""
        rest = self._rest(least)
        used = {name: rest[name] + least.allocation.loads.get(name, 0.0) for name in self.requested}
        return unreachable(self.requested, used, rest)

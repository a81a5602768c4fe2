"""Parts of a network, each with all combinations of widths that it may have, and what is known of what they take.

A layer of neurons with the synapses in front of it is a *part*, with all that is tied to it: the integers of a part
(thresholds, resets, biases, shifts) follow from the bits of that part.  So one quantized copy of the network counts one
combination of every part.  A combination that was not counted yet takes at least what was chosen, and the buffers,
which have the same size at all widths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spikequant.analyse.integer_program import SLACK, cheapest
from spikequant.analyse.recount import LOADS, stored_of
from spikequant.analyse.widths import Item, tables
from spikequant.analyse.work import Work
from spikequant.measure import MemoryRow, energy_pj, moved_bits, ram_bits

MOST_COMBINATIONS = 4096
"""Of one part; beyond that counting them is no way."""
CHANGING_RAM = ("membrane", "current")
"""What of the RAM depends on the chosen bits; the rest are buffers."""

Floats = npt.NDArray[np.float64]
Knob = tuple[Item, ...]
"""Items that share their bits."""
Picked = tuple[int, ...]
"""The number of a combination, by part."""


class NotApart(Exception):
    """What a part takes does not follow from its own bits, or there are too many combinations."""


@dataclass
class Part:
    """One part, and what was learnt of it.

    Attributes:
        knobs: places among the knobs of the whole network.
        paths: of its layers.
        index: the number of the width of each knob, by combination ``[C, knobs]``.
        rises: expected rise of each combination ``[C]``.
        chosen: what was chosen takes, by load ``[C]``.
        low: what a combination takes in all, at least; exactly where `counted` says so.
        possible: False where the network cannot be quantized so.
    """

    knobs: tuple[int, ...]
    paths: frozenset[str]
    index: npt.NDArray[np.int64]
    rises: Floats
    chosen: Mapping[str, Floats]
    low: dict[str, Floats] = field(default_factory=dict)
    counted: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    possible: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        self.low = {load: values.copy() for load, values in self.chosen.items()}
        self.counted, self.possible = np.zeros(len(self.rises), bool), np.ones(len(self.rises), bool)

    def add(self, combination: int, taken: Mapping[str, float], buffers: Mapping[str, float]) -> None:
        """What a combination was counted to take, of it the buffers, which every other one takes as well.

        Raises:
            NotApart: it was counted before, and took something else, or less than it must.
        """
        for load, values in self.low.items():
            value, close = taken[load], 1e-9 * max(abs(taken[load]), 1.0)
            if not self.counted.any():
                values += buffers[load]
            exact = self.counted[combination]
            if value < values[combination] - close or (exact and value > values[combination] + close):
                raise NotApart
            values[combination] = value
        self.counted[combination] = True

    def nearest(self, knobs: Sequence[Knob], bits: int) -> int:
        """The combination whose widths are nearest to so many bits."""
        widths = [[choice.bits for choice in knobs[k][0].choices] for k in self.knobs]
        away = [np.abs(np.array(of)[self.index[:, j]] - bits) for j, of in enumerate(widths)]
        return int(np.sum(away, axis=0).argmin())

    def named(self, knobs: Sequence[Knob], combination: int) -> tuple[tuple[str, str, int], ...]:
        """Layer, role and bits of everything in a combination."""
        pairs = zip(self.knobs, self.index[combination], strict=True)
        return tuple((i.layer, i.role, i.choices[int(n)].bits) for k, n in pairs for i in knobs[k])


def parts_of(knobs: Sequence[Knob], groups: Iterable[frozenset[str]]) -> list[Part]:
    """The knobs of a network in parts.

    Args:
        knobs: items that share their bits.
        groups: paths of each layer of neurons with its synapses.

    Raises:
        NotApart: a part with too many combinations.
    """
    joined: list[tuple[set[int], set[str]]] = []
    loose = [(set[int](), set(group)) for group in groups]
    loose += [({k}, {item.layer for item in knob}) for k, knob in enumerate(knobs)]
    for mine, paths in loose:
        touching = [one for one in joined if one[1] & paths]
        joined = [one for one in joined if not one[1] & paths]
        joined.append((mine.union(*(one[0] for one in touching)), paths.union(*(one[1] for one in touching))))
    return [_part(knobs, sorted(mine), frozenset(paths)) for mine, paths in joined if mine]


def _part(knobs: Sequence[Knob], mine: Sequence[int], paths: frozenset[str]) -> Part:
    sizes = [len(knobs[k][0].choices) for k in mine]
    if math.prod(sizes) > MOST_COMBINATIONS:
        raise NotApart
    index = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, len(mine))

    def summed(of: Sequence[Floats]) -> Floats:
        found: Floats = np.sum([values[index[:, j]] for j, values in enumerate(of)], axis=0, dtype=np.float64)
        return found

    chosen = {load: summed([tables(knobs[k], load)[0] for k in mine]) for load in LOADS}
    return Part(tuple(mine), paths, index, summed([tables(knobs[k], "")[1] for k in mine]), chosen)


def best(parts: Sequence[Part], most: Mapping[str, float], *, only_counted: bool) -> Picked | None:
    """The combination of every part with the least rise in all within `most`; None: there is none.

    What was not counted is taken at the least that it can be, so that nothing within the limits is better; with
    `only_counted` it is left out.

    Raises:
        Uncertain: as `cheapest` does.
    """
    allowed = [np.flatnonzero(part.possible & part.counted if only_counted else part.possible) for part in parts]
    if any(not len(one) for one in allowed):
        return None
    rises = [part.rises[kept] for part, kept in zip(parts, allowed, strict=True)]
    loads = [[part.low[name][kept] for part, kept in zip(parts, allowed, strict=True)] for name in most]
    least = [sum(float(one.min()) for one in of) for of in loads]
    if any(few > limit + abs(limit) * SLACK for few, limit in zip(least, most.values(), strict=True)):
        return None
    found = cheapest(rises, loads, list(most.values()))
    return None if found is None else tuple(int(kept[k]) for kept, k in zip(allowed, found, strict=True))


def taken(rows: Sequence[MemoryRow], work: Work, paths: frozenset[str]) -> tuple[dict[str, float], dict[str, float]]:
    """What the layers of a part take, by load; and of that what no width changes: buffers, and operations."""
    mine = [row for row in rows if row.layer in paths]
    whole = stored_of(mine, work.only(paths))
    idle = ram_bits(row for row in mine if row.role not in CHANGING_RAM)
    moved = moved_bits((row for row in mine if row.role not in CHANGING_RAM), steps=work.steps)
    spent = (
        work.only(paths).operations_pj()
        + energy_pj(0, 0, weight_bits_read=0, state_bits_moved=moved).integer_ops_and_traffic
    )
    always = dict.fromkeys(LOADS, 0.0) | {"ram": float(idle), "memory": float(idle), "energy": spent}
    return {load: float(whole.of(load)) for load in LOADS}, always

"""When traces are known well enough: a relative error is reached, or the order of the layers is settled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from spikequant.analyse.traces import LayerTrace


class Stop:
    """Whether the traces are known well enough; of one run, since it remembers how often it has looked."""

    def __init__(self, relative_error: float | None, confidence: float) -> None:
        self.relative_error, self.confidence = relative_error, confidence
        self.looks, self.next_look = 0, 0

    def __call__(self, rows: Sequence[LayerTrace], estimates: int) -> bool:
        """Whether `rows`, means of that many estimates, will do."""
        if self.relative_error is not None:
            # The size of the mean, not its sign: a negative running mean must not look settled.
            return all(r.standard_error <= self.relative_error * abs(r.trace) for r in rows)
        ranked = [_by_rank(rows, role) for role in {r.role for r in rows}]
        pairs = [pair for one in ranked for pair in itertools.pairwise(one)]
        if not pairs:
            return all(r.standard_error <= 0.1 * abs(r.trace) for r in rows)
        if estimates < self.next_look:
            return False
        self.looks, self.next_look = self.looks + 1, 2 * estimates
        # Which pairs are neighbours is chosen by the data, so the level is shared by all pairs.
        level = (1 - self.confidence) / sum(math.comb(len(one), 2) for one in ranked)
        return all(_differ(a, b, level / (self.looks * (self.looks + 1)), estimates) for a, b in pairs)


def _by_rank(rows: Sequence[LayerTrace], role: str) -> list[LayerTrace]:
    return sorted((r for r in rows if r.role == role), key=lambda r: -r.mean_curvature)


def _differ(a: LayerTrace, b: LayerTrace, level: float, estimates: int) -> bool:
    """One-sided test of Welch's kind, with the fewest degrees of freedom that it may have."""
    from scipy.special import stdtr

    gap = abs(a.mean_curvature - b.mean_curvature)
    error = math.hypot(a.standard_error / a.numel, b.standard_error / b.numel)
    return error == 0.0 or float(stdtr(estimates - 1, -gap / error)) < level

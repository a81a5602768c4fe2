"""The plain evaluator: every candidate is built and run over all data by itself.  The other one is measured by it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import final

import numpy as np

from spikequant.analyse import Observation, Probe, Side, observe, side_of
from spikequant.explore.build import Materials, Refused, built, refusal
from spikequant.explore.records import Candidate, Measured
from spikequant.measure import dead_share, emd, network_emd
from spikequant.training import Batch

DEAD_BELOW = 0.05


@final
class DirectEvaluator:
    """Quantize, calibrate, perhaps train, freeze, and run over the deciding data; one candidate after the other.

    Attributes:
        materials: what candidates are built from.
        reference: figures of the real network on the same data.
    """

    def __init__(self, materials: Materials, decide: Iterable[Batch]) -> None:
        self.materials, self._decide = materials, decide
        started = time.perf_counter()
        with Probe(materials.model, "the real network") as probe:
            for x, y in decide:
                probe.run(x, y)
            self._before = probe.result()
            side = side_of(materials.model, self._before)
        self.reference = measured_of(side, self._before, self._before, time.perf_counter() - started, scheme="float")

    def measure(self, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        """One result per candidate, in their order."""
        return [self._one(candidate) for candidate in candidates]

    def _one(self, candidate: Candidate) -> Measured:
        started = time.perf_counter()
        try:
            model, _ = built(self.materials, candidate)
        except Refused as error:
            return refusal(candidate, str(error), time.perf_counter() - started)
        seen = observe(model, self._decide)
        seconds = time.perf_counter() - started
        return measured_of(side_of(model, seen), seen, self._before, seconds, scheme=candidate.scheme)


def measured_of(side: Side, seen: Observation, before: Observation, seconds: float, *, scheme: str) -> Measured:
    """The figures of a network that was watched over all deciding data."""
    rates = {path: statistics.rates() for path, statistics in seen.firing.items()}
    distances = {path: emd(before.firing[path].rates(), r) for path, r in rates.items() if path in before.firing}
    return Measured(
        accuracy=side.accuracy,
        samples=len(seen.right),
        flash_bytes=side.flash_bytes,
        ram_bytes=side.ram_bytes,
        energy_pj=side.energy.integer_ops_and_traffic,
        emd=network_emd(distances) if distances else 0.0,
        dead=dead_share(np.concatenate(list(rates.values())), DEAD_BELOW),
        stopped_early=False,
        seconds=seconds,
        scheme=scheme,
    )

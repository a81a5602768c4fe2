"""Reach and rounding of what flows into a membrane: a synaptic current, or a register for the sum of a step.

Nothing resets it, so where it ends says little about the threshold: the search starts where nothing is clipped and
halves the reach as long as that brings the firing rates nearer to those of wide registers.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from spikequant.law.errors import WidthError
from spikequant.nn import QuantizedNeuron, Register
from spikequant.nn.integers import WIDE_REACH
from spikequant.nn.neuron import over_features
from spikequant.nn.program import given_to
from spikequant.quantize.calibration_report import SettledInflow
from spikequant.quantize.rate_trials import (
    WIDE,
    Found,
    Run,
    alone,
    best,
    best_reach,
    inflow_state,
    roundings_of,
    set_inflow,
)

ROOM = 1.05
"""Reach where nothing is clipped, in the largest peak that was seen."""
LEAST = 1e-6
"""Reach of a register that held nothing but 0."""
FARTHER = 8.0
"""Peaks that a wide register reaches when it is made anew, because the first one ended among them."""


@dataclasses.dataclass(frozen=True)
class WideRun:
    """A layer run alone with wide states: rates, peaks by state, and the reach of its membrane (0: the usual one)."""

    rates: Tensor
    peaks: dict[str, Tensor]
    reach: float


def inflow_of(neuron: QuantizedNeuron) -> Register | None:
    """The register that is to be settled; None where there is none, or its codes have a given worth."""
    choice = neuron.choice
    register = choice.current if neuron.real_spec.has_current else choice.input
    if register is None or register.unit == "weight" or choice.counts_lsb:
        return None
    return register if register.asked or choice.membrane.asked else None


def run_wide(neuron: QuantizedNeuron, currents: list[Tensor]) -> WideRun:
    """Rates with wide states, none of which ends where it should not; the layer keeps their peaks.

    A wide register holds some tens of thresholds.  Nothing bounds a sum, a current, the membrane of a readout or one
    that is inhibited: where a state meets the end, its register is made anew, with a reach far beyond.
    """
    flows = inflow_of(neuron) is not None
    state = inflow_state(neuron)
    reach = {"v": 0.0, state: 0.0}
    if flows and state == "x":
        widest = ROOM * float(_peaks(neuron, currents).max())
        reach["x"] = widest if widest > WIDE_REACH * neuron.default_limit() else 0.0

    def run() -> WideRun:
        rates = alone(neuron, currents, WIDE, reach["v"], (WIDE, reach[state]) if flows else None)
        return WideRun(rates, neuron.peaks, reach["v"])

    found = run()
    while ended := neuron.ended & {"v", *("i" if flows else "")}:
        reach |= {name: FARTHER * float(neuron.peaks[name].max()) for name in ended}
        try:
            farther = run()
        except WidthError:  # no carrier holds it
            break
        if all(torch.equal(farther.peaks[name], found.peaks[name]) for name in ended):
            break  # codes of a given worth
        found = farther
    neuron.peaks = found.peaks
    return found


def settle_inflow(neuron: QuantizedNeuron, currents: list[Tensor], wide: WideRun) -> SettledInflow | None:
    """Choose and set it, beside a wide membrane; `wide`: both of them wide."""
    asked = inflow_of(neuron)
    if asked is None:
        return None

    def run(register: Register, limit: float) -> Tensor:
        return alone(neuron, currents, WIDE, wide.reach, (register, limit))

    searched = from_the_peak(run, neuron, asked, _peaks(neuron, currents), wide.rates)
    set_inflow(neuron, dataclasses.replace(asked, rounding=searched[1]), searched[2])
    neuron.prove(neuron.integers())
    return SettledInflow(state=inflow_state(neuron), rounding=searched[1], limit=searched[2])


def from_the_peak(run: Run, neuron: QuantizedNeuron, asked: Register, peaks: Tensor, wide: Tensor) -> Found:
    """Rounding and reach of a state that no threshold bounds: from `peaks` on downwards, by what the layer gives."""
    roundings = roundings_of(neuron, asked)
    if asked.limit is not None:
        return best(run, asked, roundings, (asked.limit,), wide)
    if asked.clipping == "percentile":
        return best(run, asked, roundings, (max(float(torch.quantile(peaks, 0.999)), LEAST),), wide)
    limit = max(ROOM * float(peaks.max()), LEAST)
    if asked.clipping == "max":
        return best(run, asked, roundings, (limit,), wide)
    return best_reach(run, asked, roundings, (limit,), wide, step=0.5, farthest=limit)


def _peaks(neuron: QuantizedNeuron, currents: list[Tensor]) -> Tensor:
    """Largest magnitude of each neuron's current, or each channel's sum, in real units."""
    if neuron.real_spec.has_current:
        return neuron.peaks["i"]
    unit = neuron.integers().lsb
    found = []
    for current in currents:
        _, x, _ = given_to(neuron, current)
        found.append((x * over_features(unit, x.dim() - 2, last=neuron.last_axis)).abs().flatten(0, 1).amax(0))
    return torch.stack(found).amax(0).reshape(-1)

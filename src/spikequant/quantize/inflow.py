"""Reach and rounding of what flows into a membrane: a synaptic current, or a register for the sum of a step.

Nothing resets it, so where it ends says little about the threshold: the search starts where nothing is clipped and
halves the reach as long as that brings the firing rates nearer to those of wide registers.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from spikequant.nn import QuantizedNeuron, Register
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


def inflow_of(neuron: QuantizedNeuron) -> Register | None:
    """The register that is to be settled; None where there is none, or its codes have a given worth."""
    choice = neuron.choice
    register = choice.current if neuron.real_spec.has_current else choice.input
    if register is None or register.unit == "weight" or choice.membrane.unit == "weight":
        return None
    counts_lsb = choice.chip is not None and choice.chip.counts_lsb
    return register if (register.asked or choice.membrane.asked) and not counts_lsb else None


def settle_inflow(neuron: QuantizedNeuron, currents: list[Tensor], wide: Tensor) -> SettledInflow | None:
    """Choose and set it, beside a wide membrane; `wide`: the rates when both are wide, whose peaks the layer keeps."""
    asked = inflow_of(neuron)
    if asked is None:
        return None

    def run(register: Register, limit: float) -> Tensor:
        return alone(neuron, currents, WIDE, 0.0, (register, limit))

    searched = from_the_peak(run, neuron, asked, _peaks(neuron, currents), wide)
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

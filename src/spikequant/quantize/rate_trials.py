"""Firing rates of one layer run alone with other membranes, and the one whose rates are nearest to a wide one's."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from spikequant.nn import QuantizedNeuron, Register
from spikequant.nn.spike_counts import spikes_over_samples
from spikequant.quantize.settle_levels import sampled

CANDIDATES = ("toward_zero", "floor", "half_up", "half_even", "stochastic")
WIDE = Register(bits=24, rounding="half_even", asked=False)
Found = tuple[float, str, float, float]
"""``(error, rounding, reach, rate)`` of a candidate."""


def best_reach(
    neuron: QuantizedNeuron, currents: list[Tensor], asked: Register, limits: tuple[float, ...], wide: Tensor
) -> Found:
    """The best of `limits` and, where the last of them is, of twice that, as long as it helps and membranes go beyond.

    A membrane that swings far below or above its threshold, as in recurrent layers and under thresholds that adapt,
    would lose what it is owed in a register that ends near the threshold.  Each rounding has its own reach: one that
    truncates may be nearest in a short register, where its bias and that of clipping happen to cancel.
    """
    found, farthest = [], float(neuron.peaks.max())
    for rounding in _roundings(neuron, asked):
        register = dataclasses.replace(asked, rounding=rounding, choose_rounding=False)
        one, reach = best(neuron, currents, register, limits, wide), limits[-1]
        while one[2] == reach < farthest:
            reach *= 2
            one = min(one, best(neuron, currents, register, (reach,), wide), key=_error)
        found.append(one)
    return min(found, key=lambda one: (one[0], one[2]))


def _error(found: Found) -> float:
    return found[0]


def best(
    neuron: QuantizedNeuron, currents: list[Tensor], asked: Register, limits: tuple[float, ...], wide: Tensor
) -> Found:
    """The candidate whose rates are nearest to the wide ones."""
    found: Found | None = None
    for limit in limits:
        for rounding in _roundings(neuron, asked):
            register = dataclasses.replace(asked, rounding=rounding)
            rates = alone(neuron, currents, register, limit)
            error = rate_error(rates, wide)
            if found is None or error < found[0]:
                found = (error, rounding, limit, float(rates.mean()))
    assert found is not None
    return found


def _roundings(neuron: QuantizedNeuron, asked: Register) -> tuple[str, ...]:
    """What to try; without negative codes `floor` is `toward_zero`, as what lies below 0 becomes 0."""
    if not asked.choose_rounding:
        return (asked.rounding,)
    alike = not asked.signed and asked.overflow == "saturate" and neuron.choice.chip is None
    return tuple(rounding for rounding in CANDIDATES if not (alike and rounding == "floor"))


def rate_error(rates: Tensor, wide: Tensor) -> float:
    """Matched L1 of the per-neuron rates plus the shift of their mean: neither noise nor bias goes unseen.

    In float64 and one order, so that near ties do not depend on how memory holds the rates.
    """
    rates, wide = (r.to(torch.float64).contiguous() for r in (rates, wide))
    return float((rates - wide).abs().mean() + (rates.mean() - wide.mean()).abs())


def alone(neuron: QuantizedNeuron, currents: list[Tensor], register: Register, limit: float) -> Tensor:
    """Per-neuron rates of a layer run alone with another register; keeps peaks.  `_apply` proves widths after it."""
    kept = (neuron.choice, neuron.v_limit.clone(), neuron.step_mode)
    neuron.choice = dataclasses.replace(neuron.choice, membrane=register)
    neuron.v_limit.fill_(limit)
    neuron.step_mode = "m"
    try:
        neuron.prove(neuron.integers())
        total: Tensor | float = 0.0
        count, peaks = 0, []
        neuron.seen = [] if kept[0].membrane.learned and register is WIDE else neuron.seen
        for current in currents:
            neuron.watch = [] if register is WIDE else None
            neuron.reset()
            total = total + spikes_over_samples(neuron, current)
            if neuron.watch:
                peaks.append(neuron.real_peaks(neuron.watch))
                if kept[0].membrane.learned:
                    neuron.seen += [sampled(neuron.in_real_units(state)["v"]) for state in neuron.watch]
            count += current.shape[0] * current.shape[1]
        if peaks:
            neuron.peaks = torch.stack(peaks).amax(0)
    finally:
        neuron.choice, neuron.step_mode, neuron.watch = kept[0], kept[2], None
        neuron.v_limit.copy_(kept[1])
    assert isinstance(total, Tensor)
    return total / (count * neuron.spike_unit)

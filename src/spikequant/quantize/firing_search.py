"""The search for the thresholds and biases with which a layer fires as another one did."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikequant.nn import QuantizedNeuron
from spikequant.quantize.firing_rates import Counter, Halves

STEPS = (0.16, 0.08, 0.04, 0.02, 0.01)
"""Step sizes in thresholds."""
ROUNDS = 2
LEAST_THRESHOLD = 0.1


@dataclass(frozen=True)
class Shifts:
    """What is added to the compared threshold and to the bias of every channel, real values ``[C]``."""

    threshold: Tensor
    bias: Tensor

    @staticmethod
    def of(neuron: QuantizedNeuron) -> Shifts:
        """Those that a layer has; 0 where it has none."""
        zero = torch.zeros_like(neuron.scale())
        given = (neuron.threshold_shift, neuron.bias_shift)
        threshold, bias = (zero if g is None else g.to(zero).expand_as(zero).clone() for g in given)
        return Shifts(threshold, bias)

    def put(self, neuron: QuantizedNeuron) -> None:
        """Give them to a layer; a shift that is 0 everywhere is none."""
        neuron.threshold_shift = self.threshold.clone() if bool(self.threshold.any()) else None
        neuron.bias_shift = self.bias.clone() if bool(self.bias.any()) else None
        neuron.prove(neuron.integers())

    def moved(self, threshold: Tensor | float, bias: Tensor | float) -> Shifts:
        """Further shifted."""
        return Shifts(self.threshold + threshold, self.bias + bias)

    def where(self, chosen: Tensor, other: Shifts) -> Shifts:
        """These in the chosen channels, `other` elsewhere."""
        return Shifts(torch.where(chosen, self.threshold, other.threshold), torch.where(chosen, self.bias, other.bias))

    def differ_from(self, other: Shifts) -> int:
        """Channels in which something differs."""
        return int(((self.threshold != other.threshold) | (self.bias != other.bias)).sum())


def channel_error(rates: Tensor, wanted: Tensor, *, last: bool = False) -> Tensor:
    """``mean_i |r_i - R_i| + |mean_i r_i - mean_i R_i|`` over the neurons of a channel, ``[C]``.

    The first term bounds the EMD from above; the second keeps errors of one sign from adding up.

    Args:
        rates: ``[C, ...]``.
        wanted: of the same shape.
        last: channels are the last axis.

    >>> channel_error(torch.tensor([[0.25, 0.5]]), torch.tensor([[0.5, 0.25]])).item()
    0.25
    """
    apart = rates - wanted
    rows = (apart.movedim(-1, 0) if last else apart).reshape(apart.shape[-1 if last else 0], -1)
    return rows.abs().mean(1) + rows.mean(1).abs()


def search(neuron: QuantizedNeuron, currents: list[Tensor], wanted: Halves, start: Shifts) -> Shifts:
    """The best shifts of each channel on one half of the samples, kept where the other half agrees.

    Args:
        neuron: not frozen; left with other shifts.
        currents: its input sums ``[T, N, ...]``, per batch.
        wanted: rates to reach.
        start: the shifts that it has.
    """
    unit = torch.full_like(start.bias, neuron.default_limit())
    theta = neuron.real_value("threshold").detach().to(unit).expand_as(unit)
    rated = _rated(neuron, currents, start)
    best, error = start, channel_error(rated.searched, wanted.searched, last=neuron.last_axis)
    before = channel_error(rated.held, wanted.held, last=neuron.last_axis)
    for size in STEPS:
        for _ in range(ROUNDS):
            gained = torch.zeros_like(error, dtype=torch.bool)
            for threshold, bias in _directions(neuron):
                trial = best.moved(threshold * size * unit, bias * size * unit)
                allowed = (theta <= 0) | (theta + trial.threshold >= LEAST_THRESHOLD * theta)
                now = channel_error(
                    _rated(neuron, currents, trial.where(allowed, best)).searched,
                    wanted.searched,
                    last=neuron.last_axis,
                )
                better = (now < error) & allowed
                best, error = trial.where(better, best), torch.where(better, now, error)
                gained |= better
            if not bool(gained.any()):
                break
    after = channel_error(_rated(neuron, currents, best).held, wanted.held, last=neuron.last_axis)
    return best.where(after < before, start)


def _directions(neuron: QuantizedNeuron) -> tuple[tuple[int, int], ...]:
    """Signs of threshold and bias; a chip's biases stay where they are."""
    thresholds = ((1, 0), (-1, 0))
    return thresholds if neuron.choice.chip is not None else ((0, 1), (0, -1), *thresholds)


def _rated(neuron: QuantizedNeuron, currents: list[Tensor], shifts: Shifts) -> Halves:
    """Rates of the layer run alone with some shifts."""
    shifts.put(neuron)
    mode, neuron.step_mode = neuron.step_mode, "m"
    counter = Counter()
    try:
        for current in currents:
            neuron.reset()
            counter.add(neuron.advance(current) / neuron.spike_unit)
    finally:
        neuron.step_mode = mode
        neuron.reset()
    return counter.halves()

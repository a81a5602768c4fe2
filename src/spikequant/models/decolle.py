"""The convolutional network of Lui & Neftci (2021): one-state neurons, and a fixed random readout."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from spikequant.nn import SingleState, Surrogate
from spikequant.nn.over_time import OverTime

Form = Literal["original", "training", "inference"]
STATES: dict[Form, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "original": (("P", "Q"), ("R", "U")),
    "training": (("P",), ("R", "U")),
    "inference": ((), ("U",)),
}
"""States of each form, by input and by neuron of a layer."""
LEAK_A_MS = 0.97
AMPLITUDE = 0.5


class Decolle(nn.Module):
    """Convolutions of stride 2, each followed by `SingleState` neurons; scores are the mean readout of the last layer.

    Input ``[T, N, in_channels, size, size]``, output ``[N, classes]``.  The readout is random and stays so
    (`requires_grad` is off): layers learn from readouts of their own (`fit_local`), of which the last one's is this.

    Args:
        in_channels, size: of the input.
        channels: of each layer.
        kernel: odd; padded by half of it.
        classes: scores.
        step_ms: length of a step; the leak is 0.97 a millisecond.
        surrogate: None for the boxcar of the paper's code.

    Source: arXiv 2104.14117 and its code (its configuration with strides and without pooling).
    """

    def __init__(
        self,
        *,
        in_channels: int = 2,
        size: int = 32,
        channels: tuple[int, ...] = (16, 32, 32),
        kernel: int = 7,
        classes: int = 10,
        step_ms: float = 5.0,
        surrogate: Surrogate | None = None,
    ) -> None:
        super().__init__()
        self.sides = [size]
        self.channels = (in_channels, *channels)
        for k, (before, after) in enumerate(zip(self.channels, channels, strict=False), start=1):
            conv = nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2)
            with torch.no_grad():
                assert conv.bias is not None
                conv.bias.fill_(-1 / math.sqrt(before * kernel**2))  # silent without input: the bias is the threshold
            self.add_module(f"conv{k}", OverTime(conv))
            neuron = SingleState(leak=LEAK_A_MS**step_ms, surrogate=surrogate or Surrogate("boxcar", 1.0))
            self.add_module(f"lif{k}", neuron)
            self.sides.append(-(-self.sides[-1] // 2))
        self.readout = nn.Linear(channels[-1] * self.sides[-1] ** 2, classes, bias=False)
        self.readout.weight.requires_grad_(False)
        with torch.no_grad():
            self.readout.weight.copy_(random_readout(self.readout.in_features, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Scores, averaged over time."""
        for conv, neuron in self.stages():
            x = neuron(conv(x))
        scores: Tensor = self.readout(x.flatten(2)).mean(0)
        return scores

    def stages(self) -> list[tuple[nn.Module, nn.Module]]:
        """Synapse and neurons of each layer, from the input on."""
        count = len(self.channels)
        return [(getattr(self, f"conv{k}"), getattr(self, f"lif{k}")) for k in range(1, count)]

    def states(self, form: Form) -> int:
        """Numbers of state that a form keeps for one sample.

        >>> net = Decolle()
        >>> net.states("original"), net.states("inference")  # P and Q have the shape of the input of a layer
        (29696, 6656)
        """
        inputs, neurons = STATES[form]
        sizes = [c * side**2 for c, side in zip(self.channels, self.sides, strict=True)]
        return len(inputs) * sum(sizes[:-1]) + len(neurons) * sum(sizes[1:])


def random_readout(features: int, classes: int, generator: torch.Generator | None = None) -> Tensor:
    """Weights ``[classes, features]``, uniform within ``0.5 / sqrt(features)``."""
    reach = AMPLITUDE / math.sqrt(features)
    return (2 * torch.rand(classes, features, generator=generator) - 1) * reach

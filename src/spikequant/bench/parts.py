"""What a library brings to a network: its neuron, its way through time, its quantized weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from spikequant.nn.over_time import OverTime

LEAK = 0.5
"""Of every neuron of the benchmark: ``v <- v / 2 + x``, fires at 1, resets to 0, arctangent surrogate of slope 2."""


@dataclass(frozen=True)
class Parts:
    """One way to build and run a network.

    Attributes:
        neuron: makes a layer of neurons.
        time: ``"first"``: layers take ``[T, N, ...]``; ``"second"``: ``[N, T, ...]``; ``"loop"``: one step a call.
        weighted: what becomes of a plain linear or convolutional layer (a quantized one in its place).
        reset: puts a network to rest before a batch.
        gain: the weights are multiplied by this, where the library's neuron divides its input.
    """

    neuron: Callable[[], nn.Module]
    time: str = "first"
    weighted: Callable[[nn.Module], nn.Module] = lambda layer: layer
    reset: Callable[[nn.Module], None] = lambda net: None
    gain: float = 1.0

    def stateless(self, *layers: nn.Module) -> nn.Module:
        """Layers without memory, for the library's way through time."""
        if self.time == "loop":
            return layers[0] if len(layers) == 1 else nn.Sequential(*layers)
        return OverTime(*layers)

    def synapse(self, layer: nn.Module, *behind: nn.Module) -> nn.Module:
        """A weighted layer and what follows it before the neurons."""
        return self.stateless(self.weighted(layer), *behind)


class Timed(nn.Module):
    """A network run over an input ``[T, N, ...]``; its answer is the mean over time, ``[N, classes]``."""

    def __init__(self, net: nn.Module, parts: Parts) -> None:
        super().__init__()
        self.net, self.parts = net, parts
        self.born: list[nn.Module] = []
        """Layers of neurons in the order in which they were made."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean output."""
        self.parts.reset(self.net)
        if self.parts.time == "first":
            first: Tensor = self.net(x).mean(0)
            return first
        if self.parts.time == "second":
            second: Tensor = self.net(x.transpose(0, 1)).mean(1)
            return second
        total: Tensor = self.net(x[0])
        for step in x[1:]:
            total = total + self.net(step)
        return total / len(x)

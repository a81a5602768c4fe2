"""Spike-element-wise residual networks (Fang et al. 2021, "Deep Residual Learning in Spiking Neural Networks")."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from spikequant.nn import LIF, Surrogate
from spikequant.nn.over_time import OverTime

WIDTHS = (64, 128, 256, 512)


def _lif() -> nn.Module:
    return LIF(leak=0.5, surrogate=Surrogate("atan", 2.0), detach_reset=True)


def _plain(layer: nn.Module) -> nn.Module:
    return layer


class SEWBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and neurons; spikes in and out are added (ADD)."""

    def __init__(
        self,
        inside: int,
        outside: int,
        stride: int,
        *,
        neuron: Callable[[], nn.Module],
        stateless: Callable[..., nn.Module],
        weighted: Callable[[nn.Module], nn.Module],
    ) -> None:
        super().__init__()
        first = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        second = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.conv1, self.lif1 = stateless(weighted(first), nn.BatchNorm2d(outside)), neuron()
        self.conv2, self.lif2 = stateless(weighted(second), nn.BatchNorm2d(outside)), neuron()
        self.shortcut: nn.Module | None = None
        if stride != 1 or inside != outside:
            across = nn.Conv2d(inside, outside, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(stateless(weighted(across), nn.BatchNorm2d(outside)), neuron())

    def forward(self, x: Tensor) -> Tensor:
        """Sums of spikes."""
        through = self.lif2(self.conv2(self.lif1(self.conv1(x))))
        total: Tensor = through + (x if self.shortcut is None else self.shortcut(x))
        return total


class SEWResNet(nn.Module):
    """A stem (7x7, stride 2, then max-pooling), four stages of `SEWBlock`, average pooling, a linear layer.

    Input ``[T, N, C, H, W]``, output ``[T, N, classes]``.  SEW-ResNet-18 is ``blocks=(2, 2, 2, 2)``.

    Args:
        blocks: blocks in each stage.
        neuron: makes a layer of neurons.
        stateless: makes layers without memory take a train of steps.
        weighted: what becomes of each convolution and of the linear layer.
        classes: outputs.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        neuron: Callable[[], nn.Module] = _lif,
        stateless: Callable[..., nn.Module] = OverTime,
        weighted: Callable[[nn.Module], nn.Module] = _plain,
        in_channels: int = 3,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        stem = weighted(nn.Conv2d(in_channels, WIDTHS[0], 7, stride=2, padding=3, bias=False))
        self.stem, self.lif = stateless(stem, nn.BatchNorm2d(WIDTHS[0])), neuron()
        self.pool = stateless(nn.MaxPool2d(3, stride=2, padding=1))
        made: list[nn.Module] = []
        inside = WIDTHS[0]
        for stage, (count, width) in enumerate(zip(blocks, WIDTHS, strict=True)):
            for k in range(count):
                stride = 2 if k == 0 and stage > 0 else 1
                made.append(SEWBlock(inside, width, stride, neuron=neuron, stateless=stateless, weighted=weighted))
                inside = width
        self.blocks = nn.Sequential(*made)
        self.head = stateless(nn.AdaptiveAvgPool2d(1), nn.Flatten(), weighted(nn.Linear(inside, classes)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every step."""
        answer: Tensor = self.head(self.blocks(self.pool(self.lif(self.stem(x)))))
        return answer

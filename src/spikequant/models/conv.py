"""Small convolutional spiking networks for images, with direct coding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spikequant.nn import LIF, Surrogate
from spikequant.nn.over_time import OverTime


class ConvSNN(nn.Module):
    """``conv-BN-pool-LIF``, ``conv-BN-LIF`` with stride 2, then a linear readout averaged over time.

    The image is shown for `steps` steps, so its convolution is computed once.  Input
    ``[N, C, H, W]``, output logits ``[N, classes]``.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        size: int = 28,
        channels: tuple[int, int] = (16, 64),
        classes: int = 10,
        steps: int = 8,
        kernel: int = 5,
        pool: int = 2,
        leak: float = 0.5,
        reset: str = "zero",
    ) -> None:
        super().__init__()
        self.steps = steps
        options: dict[str, Any] = {
            "leak": leak,
            "reset": reset,
            "surrogate": Surrogate("atan", 2.0),
            "detach_reset": True,
        }
        self.conv1 = nn.Conv2d(in_channels, channels[0], kernel, padding=kernel // 2, bias=False)
        self.norm1 = nn.BatchNorm2d(channels[0])
        self.pool1 = nn.MaxPool2d(pool)
        self.lif1 = LIF(**options)
        self.conv2 = OverTime(
            nn.Conv2d(channels[0], channels[1], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels[1])
        )
        self.lif2 = LIF(**options)
        side = -(-size // pool // 2)
        self.fc = nn.Linear(channels[1] * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, averaged over time."""
        current = self.pool1(self.norm1(self.conv1(x)))
        spikes = self.lif1(current.unsqueeze(0).expand(self.steps, *current.shape))
        spikes = self.lif2(self.conv2(spikes))
        logits: Tensor = self.fc(spikes.flatten(2)).mean(0)
        return logits


def digits_net() -> ConvSNN:
    """The network of the demo: 8x8 digits, 8 steps."""
    return ConvSNN(size=8, channels=(16, 32), kernel=3, pool=1, steps=8)


def mnist_net() -> ConvSNN:
    """The network of the MNIST and Fashion-MNIST tables: 28x28, 8 steps."""
    return ConvSNN(size=28, channels=(16, 64), kernel=5, steps=8)

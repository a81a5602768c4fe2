"""Spiking VGG networks: convolutions, batch norm, neurons, max-pooling, and three linear layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from spikequant.law.errors import Unsupported
from spikequant.nn import LIF, Surrogate
from spikequant.nn.over_time import OverTime

Stages = tuple[tuple[int, ...], ...]
VGG9: Stages = ((64,), (128,), (256, 256), (512, 512))
VGG11: Stages = (*VGG9, (512, 512))
VGG16: Stages = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
"""Channels of the convolutions between two poolings; 11 and 16: Simonyan and Zisserman 2015, table 1, A and D."""


def _lif() -> nn.Module:
    return LIF(leak=0.5, surrogate=Surrogate("atan", 2.0), detach_reset=True)


class SpikingVGG(nn.Module):
    """`stages` of (3x3 convolution, batch norm, neurons), each ended by 2x2 max-pooling; average pooling; FC, FC, FC.

    Input ``[T, N, C, H, W]``, output ``[T, N, classes]``; with `steps` an image ``[N, C, H, W]`` is shown for so many
    steps and the output is the mean, ``[N, classes]``.  The input needs ``2^len(stages)`` rows and columns or more.

    Args:
        stages: channels of the convolutions between poolings.
        classes: outputs.
        in_channels: of the input.
        size: rows and columns of the input.
        pooled: rows and columns after the average pooling, at most what is left of `size`.
        hidden: neurons of the two layers before the last.
        width: factor of every number of channels.
        dropout: share of what each linear layer but the last loses in training.
        steps: how long an image is shown.
        neuron: makes a layer of neurons.

    Raises:
        Unsupported: numbers that make no network.
    """

    def __init__(
        self,
        stages: Stages,
        *,
        classes: int = 1000,
        in_channels: int = 3,
        size: int = 224,
        pooled: int = 7,
        hidden: int = 4096,
        width: float = 1.0,
        dropout: float = 0.5,
        steps: int | None = None,
        neuron: Callable[[], nn.Module] = _lif,
    ) -> None:
        super().__init__()
        left = size >> len(stages)
        if min(classes, in_channels, hidden, 1 if steps is None else steps) < 1 or not width > 0:
            raise Unsupported(
                f"SpikingVGG: classes={classes}, in_channels={in_channels}, hidden={hidden}, width={width}, "
                f"steps={steps}; expected 1 or more of each, and a width above 0"
            )
        if not 1 <= pooled <= left or left % pooled:
            raise Unsupported(
                f"SpikingVGG: {len(stages)} poolings leave {left} of {size} rows; pooled={pooled} does not divide them"
            )
        self.steps = steps
        made: list[nn.Module] = []
        inside = in_channels
        for stage in stages:
            for channels in stage:
                outside = max(1, int(channels * width))
                conv, norm = nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside)
                made += [nn.Sequential(conv, norm) if steps and not made else OverTime(conv, norm), neuron()]
                inside = outside
            made.append(OverTime(nn.MaxPool2d(2)))
        self.features = nn.Sequential(*made)
        into = inside * pooled * pooled
        self.pool = OverTime(nn.AvgPool2d(left // pooled), nn.Flatten()) if left > pooled else OverTime(nn.Flatten())
        self.classifier = nn.Sequential(
            OverTime(nn.Linear(into, hidden)), neuron(),
            OverTime(nn.Dropout(dropout), nn.Linear(hidden, hidden)), neuron(),
            OverTime(nn.Dropout(dropout), nn.Linear(hidden, classes)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every step, or, of an image, their mean."""
        current = self.features[0](x)
        if self.steps is not None:
            current = current.unsqueeze(0).expand(self.steps, *current.shape)
        answer: Tensor = self.classifier(self.pool(self.features[1:](current)))
        return answer if self.steps is None else answer.mean(0)


def vgg9(**options: Any) -> SpikingVGG:
    """Six convolutions and three linear layers: VGG-11 without its last stage, for images of 32x32.

    Networks of this name differ between papers; this is the most frequent.  `options` are those of `SpikingVGG`.
    """
    return SpikingVGG(VGG9, **{"size": 32, "pooled": 2, "hidden": 1024, "classes": 10, **options})


def vgg11(**options: Any) -> SpikingVGG:
    """VGG-11 with batch norm: 132,868,840 parameters at ImageNet's size."""
    return SpikingVGG(VGG11, **options)


def vgg16(**options: Any) -> SpikingVGG:
    """VGG-16 with batch norm: 138,365,992 parameters at ImageNet's size."""
    return SpikingVGG(VGG16, **options)


__all__ = ["VGG9", "VGG11", "VGG16", "SpikingVGG", "vgg9", "vgg11", "vgg16"]

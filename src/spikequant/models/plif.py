"""The networks of parametric LIF neurons for event cameras (Fang et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.law.errors import Unsupported
from spikequant.law.presets import PRESETS
from spikequant.nn import Neuron, Surrogate
from spikequant.nn.dialect import ValueSource
from spikequant.nn.over_time import OverTime

VOTERS = 10
"""Neurons of the last layer whose spikes are averaged for one class."""


def _leak(w: Tensor) -> Tensor:
    return 1 - torch.sigmoid(w)


def _gain(w: Tensor) -> Tensor:
    return torch.sigmoid(w)


def parametric_lif(*, init_tau: float = 2.0, decay_input: bool = True) -> Neuron:
    """``v <- v + sigmoid(w) (x - v)`` with a learned `w`, one a layer; fires at 1, then 0; arctangent surrogate.

    Without `decay_input`, ``v <- v - sigmoid(w) v + x``.
    Source: Fang et al., *Incorporating learnable membrane time constant to enhance learning of spiking neural
    networks*, ICCV 2021, equations 7 and 8.

    >>> parametric_lif(init_tau=2.0).real_value("leak").item()
    0.5

    Raises:
        Unsupported: `init_tau` is not more than 1.
    """
    if not init_tau > 1:
        raise Unsupported(f"parametric_lif: init_tau = {init_tau}; expected more than 1, in steps")
    sources = {"threshold": ValueSource(("threshold",)), "leak": ValueSource(("w",), _leak)}
    if decay_input:
        sources["gain"] = ValueSource(("w",), _gain)
    return Neuron(
        PRESETS["lif_leak_first"](reset="zero"),
        {"threshold": 1.0, "w": -math.log(init_tau - 1)},
        learn=("w",),
        sources=sources,
        surrogate=Surrogate("atan", 2.0),
        detach_reset=True,
    )


class PLIFNet(nn.Module):
    """``convs`` times (3x3 convolution, batch norm, neurons, 2x2 max-pooling), two layers of neurons, and a vote.

    Input ``[T, N, C, H, W]``; output ``[N, classes]``: the mean spikes of `VOTERS` neurons a class, over time.

    Args:
        convs: how many convolutions.
        size: rows and columns of the input, at least 2 to the power of `convs`.
        hidden: neurons of the layer before the last.
        classes: outputs.
        in_channels: of the input; 2 polarities.
        width: channels of every convolution.
        dropout: share of what each of the two linear layers loses in training.
        neuron: makes a layer of neurons.

    Raises:
        Unsupported: numbers that make no network.
    """

    def __init__(
        self,
        convs: int,
        *,
        size: int,
        hidden: int,
        classes: int,
        in_channels: int = 2,
        width: int = 128,
        dropout: float = 0.5,
        neuron: Callable[[], nn.Module] = parametric_lif,
    ) -> None:
        super().__init__()
        side = size >> convs if convs > 0 else 0
        if side < 1 or min(hidden, classes, in_channels, width) < 1:
            raise Unsupported(
                f"PLIFNet: convs={convs}, size={size}, hidden={hidden}, classes={classes}, in_channels={in_channels}, "
                f"width={width}; expected 1 or more of each, and a size of at least {2 ** max(convs, 1)}"
            )
        made: list[nn.Module] = []
        for k in range(convs):
            conv = nn.Conv2d(in_channels if k == 0 else width, width, 3, padding=1, bias=False)
            made += [OverTime(conv, nn.BatchNorm2d(width)), neuron(), OverTime(nn.MaxPool2d(2))]
        self.features = nn.Sequential(*made)
        self.classifier = nn.Sequential(
            OverTime(nn.Flatten(), nn.Dropout(dropout), nn.Linear(width * side * side, hidden)),
            neuron(),
            OverTime(nn.Dropout(dropout), nn.Linear(hidden, classes * VOTERS)),
            neuron(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Rates of the classes."""
        spikes: Tensor = self.classifier(self.features(x))
        votes = F.avg_pool1d(spikes.flatten(0, 1).unsqueeze(1), VOTERS, VOTERS).squeeze(1)
        apart: Tensor = votes.unflatten(0, spikes.shape[:2])  # type: ignore[no-untyped-call]
        return apart.mean(0)


def nmnist_net(*, width: int = 128, **options: Any) -> PLIFNet:
    """For N-MNIST, ``[T, N, 2, 34, 34]``: ``(c128k3-BN-PLIF-MP2) x 2, FC2048, FC100, vote``.

    `options` (`classes`, `dropout`, `neuron`) are those of `PLIFNet`, here and below.

    >>> sum(p.numel() for p in nmnist_net().parameters())
    17134440
    """
    return PLIFNet(2, **{"size": 34, "hidden": 2048, "classes": 10, "width": width, **options})


def cifar10dvs_net(*, width: int = 128, **options: Any) -> PLIFNet:
    """For CIFAR10-DVS, ``[T, N, 2, 128, 128]``: ``(c128k3-BN-PLIF-MP2) x 4, FC512, FC100, vote``.

    >>> sum(p.numel() for p in cifar10dvs_net().parameters())
    4691818
    """
    return PLIFNet(4, **{"size": 128, "hidden": 512, "classes": 10, "width": width, **options})


def gesture_net(*, width: int = 128, **options: Any) -> PLIFNet:
    """For DVS128 Gesture, ``[T, N, 2, 128, 128]``: ``(c128k3-BN-PLIF-MP2) x 5, FC512, FC110, vote``.

    >>> sum(p.numel() for p in gesture_net().parameters())
    1698933
    """
    return PLIFNet(5, **{"size": 128, "hidden": 512, "classes": 11, "width": width, **options})


__all__ = ["VOTERS", "PLIFNet", "cifar10dvs_net", "gesture_net", "nmnist_net", "parametric_lif"]

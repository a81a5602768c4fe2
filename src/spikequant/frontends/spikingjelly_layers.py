"""Layers of SpikingJelly that are more than their torch namesakes, and those that have no integer form.

Its ``Conv2d``, ``Linear``, ``BatchNorm2d``, ``MaxPool2d``, ``Flatten``, ... are torch's own with a
step mode and stay where they are; so do its containers, whose insides are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.library import Reading, refuse
from spikequant.nn import Delay

NO_LAYER = {
    **dict.fromkeys(("Conv3d", "MaxPool3d", "AvgPool3d", "AdaptiveAvgPool3d", "BatchNorm3d"),
                    "networks with three spatial axes have no integer form; use the 2d layers"),
    **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Upsample", "MaxUnpool1d", "MaxUnpool2d",
                     "MaxUnpool3d"), "there is no integer form for layers that enlarge their input"),
    **dict.fromkeys(("WSConv2d", "WSLinear"),
                    "its weights are standardized in every call; after training copy get_weight() into a plain layer"),
    **dict.fromkeys(("TemporalEffectiveBatchNorm1d", "TemporalEffectiveBatchNorm2d", "TemporalEffectiveBatchNorm3d",
                     "BatchNormThroughTime1d", "BatchNormThroughTime2d", "BatchNormThroughTime3d", "NeuNorm",
                     "ThresholdDependentBatchNorm3d"),
                    "a norm that changes from step to step does not fold; use BatchNorm"),
    "GroupNorm": "it measures its input in evaluation, too, and does not fold; use BatchNorm",
    "SynapseFilter": "it makes real numbers of spikes; CUBALIFNode has the same filter as its current",
    "DropConnectLinear": "it samples its weights in evaluation, too; use Linear and Dropout",
    "SpikeCountToBinary": "it lengthens time; lengthen it in front of the network",
    "TemporalBinSum": "it shortens time; shorten it behind the network",
    "TLastMultiStepContainer": "time is its last axis; use MultiStepContainer on [T, N, ...]",
    "TLastSeqToANNContainer": "time is its last axis; use SeqToANNContainer on [T, N, ...]",
    **dict.fromkeys(("TemporalWiseAttention", "MultiDimensionalAttention", "SpikingSelfAttention", "QKAttention",
                     "TokenQKAttention", "ChannelQKAttention", "SpikeDrivenSelfAttention"),
                    "attention has no integer form yet; use a convolutional network"),
    **dict.fromkeys(("OTTTSequential", "GradwithTrace", "SpikeTraceOp"),
                    "online learning hands on traces besides spikes; quantize the network trained by backpropagation"),
}  # fmt: skip


class SharedDropout(nn.Dropout):
    """Dropout whose mask is drawn once and stays for all steps until `reset`.

    Attributes:
        channels: drop whole channels (`Dropout2d`).
    """

    def __init__(self, p: float, *, channels: bool, step_mode: str) -> None:
        super().__init__(p)
        self.channels, self.step_mode = channels, step_mode
        self.mask: Tensor | None = None

    def reset(self) -> None:
        """Forget the mask."""
        self.mask = None

    def forward(self, input: Tensor) -> Tensor:
        """``x * mask`` in training, `x` in evaluation."""
        if not self.training:
            return input.view_as(input)  # a value of its own, so that a recording sees this layer
        step = input[0] if self.step_mode == "m" else input
        if self.mask is None or self.mask.shape != step.shape:
            drop = nn.functional.dropout2d if self.channels else nn.functional.dropout
            self.mask = drop(torch.ones_like(step), self.p, training=True)
        return input * self.mask.to(input)


class NormOverTime(nn.BatchNorm2d):
    """Batch norm on ``[T, N, C, ...]`` with the parameters and statistics of another one (tdBN)."""

    step_mode = "m"

    def __init__(self, source: Any) -> None:
        super().__init__(source.num_features, source.eps, source.momentum)
        self.weight, self.bias = source.weight, source.bias
        self.running_mean, self.running_var = source.running_mean, source.running_var
        self.num_batches_tracked = source.num_batches_tracked

    def _check_input_dim(self, input: Tensor) -> None:
        """One or two axes of space, or none."""

    def forward(self, input: Tensor) -> Tensor:
        """Time and batch are measured together."""
        merged = super().forward(input.flatten(0, 1))
        return merged.reshape(input.shape)


def _dropout(path: str, module: Any) -> Reading:
    channels = type(module).__name__ == "Dropout2d"
    return Reading(module=SharedDropout(module.p, channels=channels, step_mode=module.step_mode))


def _delay(path: str, module: Any) -> Reading:
    if module.delay_steps == 0:
        return Reading(module=nn.Identity())
    return Reading(module=Delay(module.delay_steps, step_mode=module.step_mode))


def _threshold_dependent(path: str, module: Any) -> Reading:
    if not module.track_running_stats:
        raise refuse(path, "track_running_stats", False, "its statistics of one batch cannot become thresholds")
    return Reading(module=NormOverTime(module))


LAYERS: dict[str, Callable[[str, Any], Reading]] = {
    "Dropout": _dropout,
    "Dropout2d": _dropout,
    "Delay": _delay,
    "ThresholdDependentBatchNorm1d": _threshold_dependent,
    "ThresholdDependentBatchNorm2d": _threshold_dependent,
}

"""What keeps a learned scale a scale."""

from __future__ import annotations

from torch import Tensor

from spikequant.quantizers.straight_through import straight_through

LEAST_LEARNED_SCALE = 2.0**-60


def positive_scale(scale: Tensor) -> Tensor:
    """``max(scale, 2^-60)``, gradient 1: a step of the optimiser across 0 stays recoverable.

    >>> import torch
    >>> positive_scale(torch.tensor([0.5, -1.0])).tolist() == [0.5, 2.0**-60]
    True
    """
    return straight_through(scale.clamp(min=LEAST_LEARNED_SCALE), scale)

"""Sums over channels last in one compiled pass: the moments of a batch, and their way back."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from spikequant.nn.memory import POOL
from spikequant.nn.products import kernels

PARTS = 16
"""Parts whose sums are added in order: the result does not depend on the number of threads."""


def is_plain(x: Tensor) -> bool:
    """Whether the compiled passes take ``[N, C, H, W]``: float32 on a CPU, channels last, more than a few values."""
    plain = type(x) is Tensor and x.dim() == 4 and x.dtype == torch.float32 and x.device.type == "cpu"
    if not plain or x.numel() == 0 or torch._C._functorch.maybe_current_level() is not None:
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and kernels.library() is not None


def moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (biased) and mean of every channel of ``[N, C, H, W]``, channels last, in float64.

    >>> moments_of(torch.tensor([[1.0, 4.0], [3.0, 4.0]])[:, :, None, None].to(memory_format=torch.channels_last))
    (tensor([1., 0.], dtype=torch.float64), tensor([2., 4.], dtype=torch.float64))
    """
    loaded, channels = kernels.library(), x.shape[1]
    assert loaded is not None
    rows = x.numel() // channels
    sums = torch.zeros(PARTS, 2, channels, dtype=torch.float64)
    loaded.sq_moments(
        kernels.at(x), ctypes.c_ssize_t(rows), ctypes.c_ssize_t(channels), ctypes.c_ssize_t(PARTS), kernels.at(sums),
        kernels.threads(4 * x.numel(), PARTS),
    )  # fmt: skip
    mean, square = sums.sum(0) / rows
    return (square - mean**2).clamp_min(0), mean


def joined(through: Tensor | None, x: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """``through + slope x + offset``, slope and offset per channel; without `through` the rest."""
    loaded, channels = kernels.library(), x.shape[1]
    assert loaded is not None
    out = POOL.empty(tuple(x.shape), torch.float32, last=True)
    if through is not None:
        through = through.contiguous(memory_format=torch.channels_last)
    slope, offset = slope.to(torch.float32), offset.to(torch.float32)
    rows = x.numel() // channels
    loaded.sq_join(
        ctypes.c_void_p() if through is None else kernels.at(through), kernels.at(x), ctypes.c_ssize_t(rows),
        ctypes.c_ssize_t(channels), kernels.at(slope), kernels.at(offset), kernels.at(out),
        kernels.threads(4 * x.numel(), PARTS),
    )  # fmt: skip
    return out


__all__ = ["is_plain", "joined", "moments_of"]

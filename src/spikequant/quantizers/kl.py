"""The clip limit that loses least information: calibration by Kullback-Leibler divergence.

For a histogram ``h`` of the magnitudes with ``B`` bins and ``L`` levels, and every candidate ``i`` of
``max(L, B/16) .. B``:

    P = h[0:i], all that lies beyond added to its last bin
    Q = h[0:i] merged into L groups, each spread evenly over its non-empty bins
    KL(P || Q) = sum p log(p / q)          (both normalised)

The limit is the upper edge of the best ``i``; a tie takes the larger.  ``h[0]`` is replaced by ``h[1]``: exact
zeros say nothing about the range.  Source: Migacz, *8-bit inference with TensorRT*, GTC 2017; first bin, first
candidate and ties as in NVIDIA's pytorch-quantization.

``sum p log q`` needs only the sum and the count of non-empty bins of each group, so that a candidate costs
``O(L)`` instead of ``O(B)``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def least_divergence_limit(magnitude: Tensor, *, bins: int, magnitudes: int) -> Tensor:
    """Limit ``[C]`` of ``magnitude [C, M] >= 0``; with as many levels as bins it is the maximum.

    >>> x = torch.cat([torch.linspace(0, 1, 4097), torch.tensor([16.0])])[None]
    >>> least_divergence_limit(x, bins=256, magnitudes=8).tolist()
    [1.0]
    """
    widest = magnitude.amax(dim=1)
    if magnitudes >= bins:
        return widest
    counts = _histogram(magnitude, widest, bins)
    counts[:, 0] = counts[:, 1]
    divergences = _divergences(counts, magnitudes)
    first = bins - divergences.shape[1] + 1
    best = divergences.shape[1] - 1 - divergences.flip(1).argmin(dim=1) + first
    return (widest.double() * best / bins).to(magnitude.dtype)


def _histogram(magnitude: Tensor, widest: Tensor, bins: int) -> Tensor:
    """Counts ``[C, bins]`` on equal bins from 0 to the row's maximum, in float64."""
    width = torch.where(widest > 0, widest, 1.0).double()
    index = (magnitude.double() / width[:, None] * bins).to(torch.int64).clamp_(max=bins - 1)
    offset = torch.arange(magnitude.shape[0], device=magnitude.device)[:, None] * bins
    flat = torch.bincount((index + offset).reshape(-1), minlength=magnitude.shape[0] * bins)
    return flat.reshape(-1, bins).double()


def _divergences(counts: Tensor, levels: int) -> Tensor:
    """``KL(P || Q)`` of every candidate, ``[C, candidates]``; infinite where P has mass and Q has none."""
    bins = counts.shape[1]
    total = counts.sum(dim=1)
    sums = _running(counts)
    filled = _running((counts > 0).double())
    entropies = _running(torch.xlogy(counts, counts))
    edges = torch.arange(levels + 1, device=counts.device)
    results = []
    for i in range(max(levels, bins // 16), bins + 1):
        ends = (edges * i + levels - 1) // levels  # ceil(j * i / levels)
        group = sums[:, ends].diff(dim=1)
        spread = group / filled[:, ends].diff(dim=1).clamp(min=1)
        beyond = total - sums[:, i]
        last = counts[:, i - 1]
        own = entropies[:, i - 1] + torch.xlogy(last + beyond, last + beyond)
        cross = torch.xlogy(group, spread).sum(dim=1) + torch.xlogy(beyond, spread[:, -1])
        kl = (own - cross) / total - total.log() + sums[:, i].log()
        kl = torch.where((beyond > 0) & (last == 0), torch.inf, kl)
        results.append(torch.where(total > 0, kl, 0.0))
    return torch.stack(results, dim=1)


def _running(values: Tensor) -> Tensor:
    """Running sums that start with 0, ``[C, bins + 1]``."""
    return torch.nn.functional.pad(values.cumsum(dim=1), (1, 0))

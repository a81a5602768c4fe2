"""k-means of numbers on a line, per channel: where a quantizer puts its boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_PASSES = 100


def boundaries_of_clusters(rows: Tensor, count: int) -> Tensor:
    """Where `count` clusters of the values of each row and of their negatives meet.

    Lloyd's iteration from the quantiles of ``x`` and ``-x`` together, so that the boundaries are symmetric about 0 as
    the levels of weights are; between two clusters the boundary is the middle of their nearest members, next to an
    empty one the middle of the centres.

    Args:
        rows: ``[channels, values]``, finite.
        count: clusters, at least 2.

    Returns:
        ``[channels, count - 1]``, ascending, float64.

    >>> boundaries_of_clusters(torch.tensor([[-3.0, -2.5, 0.5, 0.0, 3.0]]), 3).tolist()
    [[-1.5, 1.5]]
    """
    both = torch.cat([rows, -rows], dim=1).to(torch.float64).sort(dim=1).values
    sums = torch.nn.functional.pad(both.cumsum(1), (1, 0))
    places = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * both.shape[1]).to(torch.int64)
    centres = both[:, places]
    ends = _ends(both, centres)
    for _ in range(MOST_PASSES):
        members = ends.diff(dim=1)
        totals = sums.gather(1, ends).diff(dim=1)
        moved = torch.where(members > 0, totals / members.clamp(min=1), centres)
        centres, before = (moved - moved.flip(1)) / 2, ends
        ends = _ends(both, centres)
        if torch.equal(ends, before):
            break
    return _between(both, centres, ends)


def _ends(both: Tensor, centres: Tensor) -> Tensor:
    """Where each cluster ends in the sorted values, ``[channels, count + 1]`` with 0 in front."""
    middles = (centres[:, 1:] + centres[:, :-1]) / 2
    inner = torch.searchsorted(both, middles.contiguous())
    first, last = torch.zeros_like(inner[:, :1]), torch.full_like(inner[:, :1], both.shape[1])
    return torch.cat([first, inner, last], dim=1)


def _between(both: Tensor, centres: Tensor, ends: Tensor) -> Tensor:
    inner, members = ends[:, 1:-1], ends.diff(dim=1)
    last, first = both.gather(1, (inner - 1).clamp(min=0)), both.gather(1, inner.clamp(max=both.shape[1] - 1))
    filled = (members[:, :-1] > 0) & (members[:, 1:] > 0)
    found = torch.where(filled, (last + first) / 2, (centres[:, 1:] + centres[:, :-1]) / 2)
    return (found - found.flip(1)) / 2


__all__ = ["boundaries_of_clusters"]

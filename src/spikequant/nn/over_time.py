"""Apply a layer without memory to every step of ``[T, N, ...]`` at once."""

from __future__ import annotations

from torch import Tensor, nn


class OverTime(nn.Module):
    """Merge time and batch, run `layer`, take them apart: ``[T, N, ...] -> [T, N, ...]``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layer = layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for every step."""
        steps, batch = x.shape[:2]
        merged: Tensor = self.layer(x.flatten(0, 1))
        apart: Tensor = merged.unflatten(0, (steps, batch))  # type: ignore[no-untyped-call]
        return apart


def summed_over_samples(train: Tensor) -> Tensor:
    """Spikes over steps and samples: ``[T, N, *features]`` to ``[*features]``, in the order in which memory holds them.

    Several times as fast as a sum over two axes where channels lie last in memory.

    >>> import torch
    >>> summed_over_samples(torch.ones(2, 3, 4)).tolist()
    [6.0, 6.0, 6.0, 6.0]
    """
    order = sorted(range(2, train.dim()), key=train.stride, reverse=True)
    rows = train.permute(0, 1, *order).flatten(0, 1)
    total = rows.reshape(len(rows), -1).sum(0).reshape(rows.shape[1:])
    return total.permute(*(order.index(k) for k in range(2, train.dim())))

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

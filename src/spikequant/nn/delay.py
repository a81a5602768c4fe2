"""A delay of whole time steps between two layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikequant.law.errors import Unsupported


class Delay(nn.Module):
    """Spikes of `steps` steps ago; zeros before the first: ``y[t] = x[t - steps]``.

    Multi-step mode takes ``[T, N, ...]``, single-step mode ``[N, ...]`` and keeps a queue
    until `reset`.  In an integer network it is the delay of an edge and costs a line of
    `steps` spike bitmaps.
    """

    def __init__(self, steps: int, *, step_mode: str = "m") -> None:
        super().__init__()
        if steps < 1 or step_mode not in ("m", "s"):
            raise Unsupported(
                f"Delay: steps {steps}, step_mode {step_mode!r}; expected at least 1 step, mode 'm' or 's'"
            )
        self.steps, self.step_mode = steps, step_mode
        self.queue: list[Tensor] = []

    def reset(self) -> None:
        """Forget what is under way."""
        self.queue = []

    def forward(self, x: Tensor) -> Tensor:
        """The delayed input."""
        if self.step_mode == "m":
            return delayed(x, self.steps)
        self.queue.append(x)
        if len(self.queue) <= self.steps:
            return torch.zeros_like(x)
        late = self.queue.pop(0)
        return late.view_as(late)  # a tensor of its own: capture tells values apart by their tensors

    def __getstate__(self) -> dict[str, Any]:
        """Copies start empty."""
        return {**self.__dict__, "queue": []}


def delayed(x: Tensor, steps: int) -> Tensor:
    """``[T, N, ...]`` shifted by `steps` along time, zeros first."""
    if steps == 0:
        return x
    return torch.cat([torch.zeros_like(x[:steps]), x[: max(x.shape[0] - steps, 0)]])[: x.shape[0]]

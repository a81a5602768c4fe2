"""Automatic mixed precision: real layers in half precision, integer sums as exact as ever."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from spikequant.law.errors import DataError

Half = Literal["bfloat16", "float16"]
HALVES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@final
class Precision:
    """How a step is computed: in float32, or under autocast; float16 scales the loss so that gradients survive.

    Quantized layers take no part: their products are sums of integers, which half precision would round.

    Args:
        half: None for float32.
        device: type of the device, ``"cpu"`` or ``"cuda"``.

    Raises:
        DataError: an unknown precision.
    """

    def __init__(self, half: str | None, device: str) -> None:
        if half is not None and half not in get_args(Half):
            raise DataError(f"fit: amp = {half!r}; expected None, {' or '.join(map(repr, get_args(Half)))}")
        self.half, self.device = half, device
        self._scaler: Any = torch.amp.GradScaler(device) if half == "float16" else None

    def forward(self) -> contextlib.AbstractContextManager[Any]:
        """The context of forward pass and loss."""
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device, HALVES[self.half])

    def backward(self, loss: Tensor) -> None:
        """Backward pass, of the scaled loss with float16."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """A step of the optimizer; with float16 one whose gradients overflowed is left out."""
        if self._scaler is None:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, float]:
        """The scale of the loss and how long it has held; empty without one."""
        if self._scaler is None:
            return {}
        return {name: float(value) for name, value in self._scaler.state_dict().items()}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from `state`.

        Raises:
            DataError: it was written with another precision.
        """
        if bool(state) != (self._scaler is not None):
            raise DataError(f"it was written with another precision than amp = {self.half!r}")
        if self._scaler is not None:
            whole = {"growth_interval", "_growth_tracker"}
            self._scaler.load_state_dict({k: int(v) if k in whole else v for k, v in state.items()})


__all__ = ["Half", "Precision"]

"""What travels between the layers of a batch: bytes ``[N, T, H, W, C]``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spikequant.law.formats import IntArray
from spikequant.nn.memory import POOL
from spikequant.nn.products.byte_input import pack_compiled
from spikequant.nn.products.proof import Widths


@dataclass(frozen=True, eq=False)
class Bytes:
    """Integers as ``value + shift`` in uint8.

    Attributes:
        data: ``[N, T, H, W, C]`` with any stride over samples and steps, dense behind; features have ``H = W = 1``.
            One step where the value is the same at every step.
    """

    data: Tensor
    shift: int = 0

    def sizes(self, padding: tuple[int, int] = (0, 0)) -> list[int]:
        """What the kernels want to know: strides, shape, corner."""
        _, steps, *inner = self.data.shape
        return [self.data.stride(0), self.data.stride(1), steps, *inner, *padding]

    def over(self, steps: int) -> Tensor:
        """The data with an axis of all steps."""
        n, _, *inner = self.data.shape
        return self.data.expand(n, steps, *inner)

    def flattened(self) -> Bytes:
        """Features in the order ``C, H, W``."""
        n, steps, height, width, channels = self.data.shape
        if height * width == 1:
            return self
        flat = self.data.permute(0, 1, 4, 2, 3).reshape(n, steps, 1, 1, channels * height * width)
        return Bytes(flat, self.shift)


def empty(shape: tuple[int, ...]) -> Tensor:
    """Room for bytes."""
    return POOL.empty(shape, torch.uint8)


def plane(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """``(C, H, W)`` of a node's shape ``[features]``, ``[C, L]`` or ``[C, H, W]``."""
    return (shape[0], *(1,) * (3 - len(shape)), *shape[1:])  # type: ignore[return-value]


def by_channel(value: IntArray, shape: tuple[int, ...]) -> Tensor | None:
    """A number of a layer of `shape` in doubles, ``[1]`` or ``[C]``; None if it differs within a channel.

    It spreads over `shape` as arrays do, from the last axis on: ``[C]`` beside ``[C, H, W]`` is one per column.

    >>> by_channel(np.array([[1], [2]]), (2, 3))
    tensor([1., 2.], dtype=torch.float64)
    >>> by_channel(np.array([1, 2, 3]), (3, 3)) is None
    True
    """
    value = np.asarray(value)
    if value.size > 1 and (value.ndim < len(shape) or value.size != shape[0] or value.shape[0] != shape[0]):
        return None
    return torch.from_numpy(value.reshape(-1).astype(np.float64))


def packed(x: Tensor, shape: tuple[int, ...], low: int, high: int) -> Bytes | None:
    """Whole numbers ``x: [N, T, *shape]`` in float32 as bytes; None if one is no whole number from `low` to `high`."""
    channels, height, width = plane(shape)
    apart = x.reshape(*x.shape[:2], channels, height, width)
    steps_first = apart.stride(1) > apart.stride(0)
    merged = (apart.transpose(0, 1) if steps_first else apart).flatten(0, 1)
    outer = (apart.shape[1], apart.shape[0]) if steps_first else (apart.shape[0], apart.shape[1])
    data = empty((*outer, height, width, channels))
    widths = Widths(low, high, 0, 0, 0)  # of inputs alone
    if pack_compiled(merged, data.flatten(0, 1), (0, 0), widths) is None:
        return None
    return Bytes(data.transpose(0, 1) if steps_first else data, widths.shift)

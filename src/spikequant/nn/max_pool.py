"""`torch.nn.MaxPool2d` in compiled passes, as `quantize_` puts it behind neurons: one byte is kept per maximum."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from spikequant.nn.memory import POOL
from spikequant.nn.products import kernels

MOST_TAPS = 255


@dataclass(frozen=True)
class Window:
    """What a maximum is taken over: rows and columns of size, step and border."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Windows per axis."""
        rows, columns = (
            (n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, self.kernel, self.stride, self.padding, strict=True)
        )
        return rows, columns

    def numbers(self, size: tuple[int, int]) -> Any:
        """What the kernels want to know."""
        return kernels.sizes(*self.kernel, *self.stride, *self.padding, *self.output_size(size))

    def places(self, where: Tensor, size: tuple[int, int]) -> Tensor:
        """``h W + w`` of each maximum, from the tap of its window: ``[N, C, OH, OW]``."""
        rows, columns = (
            torch.arange(n) * s - p
            for n, s, p in zip(self.output_size(size), self.stride, self.padding, strict=True)
        )  # fmt: skip
        tap, (high, wide) = where.to(torch.int64), self.kernel
        down, across = torch.arange(high).repeat_interleave(wide)[tap], torch.arange(wide).repeat(high)[tap]
        return (down + rows[:, None]) * size[1] + across + columns


class _MaxPool(torch.autograd.Function):
    """The maximum; equal values: the first of a window takes the gradient, as in torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Window) -> Tensor:
        out, where = _pooled(x, window, keeps=True)
        ctx.window, ctx.shape = window, x.shape
        ctx.save_for_backward(where)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (g,), (where,), window, shape = grad_outputs, ctx.saved_tensors, ctx.window, ctx.shape
        size = (shape[2], shape[3])
        if torch.is_grad_enabled() or g.dtype != torch.float32:
            places = window.places(where, size).flatten(2)
            flat = g.new_zeros(shape[0], shape[1], size[0] * size[1]).scatter_add(2, places, g.flatten(2))
            return flat.reshape(shape), None
        g = g.contiguous(memory_format=torch.channels_last)
        out, loaded = POOL.empty(shape, torch.float32, last=True), kernels.library()
        assert loaded is not None
        sizes, numbers = kernels.sizes(*size, shape[1]), window.numbers(size)

        loaded.sq_max_pool_backward(
            kernels.at(g), kernels.at(where), sizes, numbers, kernels.at(out), ctypes.c_ssize_t(shape[0]),
            kernels.threads(4 * out.numel(), shape[0]),
        )  # fmt: skip
        return out, None


def _pooled(x: Tensor, window: Window, *, keeps: bool) -> tuple[Tensor, Tensor]:
    """Maxima, channels last, and their taps; without `keeps` an empty tensor."""
    batch, channels, height, width = x.shape
    shape = (batch, channels, *window.output_size((height, width)))
    out, loaded = POOL.empty(shape, torch.float32, last=True), kernels.library()
    where = POOL.empty(shape, torch.uint8, last=True) if keeps else torch.empty(0, dtype=torch.uint8)
    assert loaded is not None
    sizes, numbers = kernels.sizes(height, width, channels), window.numbers((height, width))

    loaded.sq_max_pool(
        kernels.at(x), sizes, numbers, kernels.at(out), kernels.at(where) if keeps else ctypes.c_void_p(),
        ctypes.c_ssize_t(batch), kernels.threads(4 * x.numel(), batch),
    )  # fmt: skip
    return out, where


class SpikeMaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d`, value for value and gradient for gradient, in a third of its time behind neurons.

    Torch keeps its input and an index of 64 bits per maximum for the way back, this layer one byte.  Where its kernels
    do not fit (another device, type or order of memory, a compiler) it is torch's own.

    >>> pool = SpikeMaxPool2d(nn.MaxPool2d(2))
    >>> pool(torch.arange(16.0).reshape(1, 1, 4, 4)).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """

    def __init__(self, source: nn.MaxPool2d) -> None:
        super().__init__(
            source.kernel_size, source.stride, source.padding, source.dilation, source.return_indices, source.ceil_mode
        )

    def forward(self, input: Tensor) -> Any:
        """The maxima of ``[N, C, H, W]``."""
        window = self._window(input)
        if window is None:
            return super().forward(input)
        if torch.is_grad_enabled() and input.requires_grad:
            return _MaxPool.apply(input, window)  # type: ignore[no-untyped-call]
        return _pooled(input, window, keeps=False)[0]

    def _window(self, x: Tensor) -> Window | None:
        """The window, or None where torch's own operation has to run."""
        if torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None:
            return None
        traced = torch._C._get_tracing_state() is not None
        if traced or forward_ad._current_level >= 0:  # neither sees what a kernel writes
            return None
        plain = type(x) is Tensor and x.dim() == 4 and x.device.type == "cpu" and x.dtype == torch.float32
        if not plain or x.numel() == 0 or not x.is_contiguous(memory_format=torch.channels_last):
            return None
        if self.return_indices or self.ceil_mode or _pair(self.dilation) != (1, 1) or kernels.library() is None:
            return None
        window = Window(_pair(self.kernel_size), _pair(self.stride), _pair(self.padding))
        taps = window.kernel[0] * window.kernel[1]
        bordered = all(2 * p <= k for p, k in zip(window.padding, window.kernel, strict=True))
        fits = min(window.output_size((x.shape[2], x.shape[3]))) > 0
        return window if taps <= MOST_TAPS and bordered and fits and min(window.stride) > 0 else None


def _pair(value: Any) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns = value if isinstance(value, (tuple, list)) else (value, value)
    return int(rows), int(columns)

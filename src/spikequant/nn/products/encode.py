"""Weight codes in one pass over the weights, and their gradient in another: what a training step does every time."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from spikequant.nn.memory import POOL
from spikequant.nn.products import kernels
from spikequant.quantizers import Quantizer, Uniform


class _Encode(torch.autograd.Function):
    """``round_half_even(clip(w / scale))``; backward ``1 / scale`` inside the range."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.range = (low, high)
        out = POOL.empty_like(weight)
        _over_rows("sq_encode", weight, scale, (low, high), out)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (weight, scale), (low, high) = grad_outputs, ctx.saved_tensors, ctx.range
        if torch.is_grad_enabled() or g.dtype != torch.float32:
            units = weight / scale
            return g * ((units >= low) & (units <= high)) / scale, None, None, None
        out = POOL.empty_like(weight)
        _over_rows("sq_encode_backward", weight, scale, (low, high), g.contiguous(), out)
        return out, None, None, None


def _over_rows(name: str, weight: Tensor, scale: Tensor, limits: tuple[int, int], *tensors: Tensor) -> None:
    function = getattr(kernels.library(), name)
    rows, per_row = weight.shape[0], int(scale.numel() > 1)
    many, flat = weight.numel() // rows, scale.reshape(-1).contiguous()

    def part(start: int, stop: int) -> None:
        function(
            kernels.at(weight), ctypes.c_ssize_t(many), kernels.at(flat), ctypes.c_ssize_t(per_row),
            *(ctypes.c_float(limit) for limit in limits), *map(kernels.at, tensors),
            ctypes.c_ssize_t(start), ctypes.c_ssize_t(stop),
        )  # fmt: skip

    kernels.shared_among_threads(part, rows, 8 * weight.numel())


def encoded(quantizer: Quantizer, weight: Tensor, scale: Tensor, noise: Tensor | None = None) -> Tensor:
    """`quantizer.codes`, bit for bit; in compiled passes where the scale is given and rounding is half to even."""
    plain = isinstance(quantizer, Uniform) and quantizer.grid != "symmetric" and quantizer.rounding == "half_even"
    ours = weight.dtype == scale.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()
    per_row = scale.numel() in (1, weight.shape[0]) and scale.numel() == scale.shape[:1].numel()
    learns = scale.requires_grad and torch.is_grad_enabled()
    if not (plain and ours and per_row) or learns or torch.compiler.is_compiling() or kernels.library() is None:
        return quantizer.codes(weight, scale, noise=noise)
    fmt = quantizer.code_format
    codes: Tensor = _Encode.apply(weight, scale.detach(), fmt.min, fmt.max)  # type: ignore[no-untyped-call]
    return codes

"""Weight codes in one pass over the weights, and their gradient in another: what a training step does every time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikequant.nn.memory import POOL
from spikequant.nn.products import kernels
from spikequant.quantizers import MaxClipping, Quantizer, Uniform


@dataclass(frozen=True, eq=False)
class Coding:
    """Where codes came from: ``round_half_even(clip(weight / scale, low, high))``, for a product's way back.

    Attributes:
        weight: the float weights, which learn.
        passed: is called when a backward pass has gone through.
        part: of a kernel ``[out, in, h, w]``, the taps that a product uses; None where it uses all.
    """

    weight: Tensor
    scale: Tensor
    low: int
    high: int
    passed: Callable[[], None]
    part: tuple[slice, ...] | None = None

    def _scale(self) -> Tensor:
        """The scale beside a part of the weights."""
        return self.scale if self.scale.numel() == 1 else self.scale.reshape(-1, 1, 1, 1)

    def codes(self, weight: Tensor, made: Tensor) -> Tensor:
        """`made`, the codes, as a function of the weights they came from: for derivatives of gradients."""
        if self.part is not None:
            used = weight[self.part].contiguous()  # its way back reads memory in order
            found: Tensor = _Encode.apply(used, self._scale(), self.low, self.high, [made])  # type: ignore[no-untyped-call]
            return found
        codes: Tensor = _Encode.apply(  # type: ignore[no-untyped-call]
            weight.reshape(self.weight.shape), self.scale, self.low, self.high, [made.reshape(self.weight.shape)]
        )
        return codes

    def gradient(self, g: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
        """``dL/dweight`` from the gradient `g` of the gained codes, whose memory it may take."""
        shape = self.weight.shape
        if self.part is not None:
            used = _masked(g * gain[:, None, None, None], weight[self.part], self._scale(), self.low, self.high)
            sides = [side for part, size in zip(self.part, weight.shape, strict=True) for side in _outside(part, size)]
            return F.pad(used, [*sides[6:8], *sides[4:6]])  # the last axis first
        if torch.is_grad_enabled() or g.dtype != torch.float32:
            gained = g.reshape(shape) * gain.reshape(-1, *([1] * (len(shape) - 1)))
            return _masked(gained, weight.reshape(shape), self.scale, self.low, self.high)
        g = g.contiguous()
        _over_rows("sq_encode_backward", self.weight, self.scale, (self.low, self.high), g, gain, g)
        return g


def _outside(part: slice, size: int) -> tuple[int, int]:
    """How many lie before and behind a part of an axis."""
    start, stop, _ = part.indices(size)
    return start, size - stop


def _masked(g: Tensor, weight: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """The gradient of `_Encode`, differentiable."""
    units = weight / scale
    return g * ((units >= low) & (units <= high)) / scale


class _Encode(torch.autograd.Function):
    """``round_half_even(clip(w / scale))``; backward ``1 / scale`` inside the range."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, low: int, high: int, made: list[Tensor]) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.range = (low, high)
        if made:
            return made.pop()
        out = POOL.empty_like(weight)
        _over_rows("sq_encode", weight, scale, (low, high), out)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (weight, scale), (low, high) = grad_outputs, ctx.saved_tensors, ctx.range
        if torch.is_grad_enabled() or g.dtype != torch.float32:
            return _masked(g, weight, scale, low, high), None, None, None, None
        out = POOL.empty_like(weight)
        _over_rows("sq_encode_backward", weight, scale, (low, high), g.contiguous(), None, out)
        return out, None, None, None, None


def _over_rows(name: str, weight: Tensor, scale: Tensor, limits: tuple[int, int], *tensors: Tensor | None) -> None:
    function = getattr(kernels.library(), name)
    rows, per_row = weight.shape[0], int(scale.numel() > 1)
    flat = scale.reshape(-1).contiguous()
    function(
        kernels.at(weight), ctypes.c_ssize_t(rows), ctypes.c_ssize_t(weight.numel() // rows), kernels.at(flat),
        ctypes.c_ssize_t(per_row), *(ctypes.c_float(limit) for limit in limits),
        *(ctypes.c_void_p() if tensor is None else kernels.at(tensor) for tensor in tensors),
        kernels.threads(8 * weight.numel(), rows),
    )  # fmt: skip


def weight_operands(coding: Coding | None, gain: Tensor | None) -> tuple[Any, ...]:
    """What a kernel takes that goes on from the gradient of gained codes to that of the weights; they must outlive it.

    `gain`: one float32 per output channel, or None.
    """
    if coding is None:
        return (*[ctypes.c_void_p()] * 2, ctypes.c_ssize_t(0), ctypes.c_float(0), ctypes.c_float(0), ctypes.c_void_p())
    return (
        kernels.at(coding.weight), kernels.at(coding.scale), ctypes.c_ssize_t(int(coding.scale.numel() > 1)),
        ctypes.c_float(coding.low), ctypes.c_float(coding.high),
        ctypes.c_void_p() if gain is None else kernels.at(gain),
    )  # fmt: skip


def encoded(quantizer: Quantizer, weight: Tensor, scale: Tensor, noise: Tensor | None = None) -> Tensor:
    """`quantizer.codes`, bit for bit; in compiled passes where the scale is given and rounding is half to even."""
    if not is_compiled(quantizer, weight, scale):
        return quantizer.codes(weight, scale, noise=noise)
    return _encode(quantizer, weight, scale.detach())


def reach_of(codes: Tensor) -> Tensor:
    """``sum |code|`` of each output channel, ``[C]``, float64."""
    codes = codes.detach()
    ours = codes.dtype == torch.float32 and codes.device.type == "cpu" and codes.is_contiguous() and codes.numel() > 0
    loaded = kernels.library()
    if not ours or loaded is None or torch.compiler.is_compiling():
        return codes.abs().flatten(1).sum(1, dtype=torch.float64)
    reach, rows = torch.empty(codes.shape[0], dtype=torch.float64), codes.shape[0]
    loaded.sq_reach(
        kernels.at(codes), ctypes.c_ssize_t(rows), ctypes.c_ssize_t(codes.numel() // rows), kernels.at(reach),
        kernels.threads(4 * codes.numel(), rows),
    )  # fmt: skip
    return reach


def is_compiled(quantizer: Quantizer, weight: Tensor, scale: Tensor) -> bool:
    """Whether the codes of these weights are made in compiled passes."""
    ours = _is_plain(quantizer, weight) and weight.dtype == scale.dtype
    per_row = scale.numel() in (1, weight.shape[0]) and scale.numel() == scale.shape[:1].numel()
    return ours and per_row and not (scale.requires_grad and torch.is_grad_enabled())


def _is_plain(quantizer: Quantizer, weight: Tensor) -> bool:
    plain = isinstance(quantizer, Uniform) and quantizer.grid != "symmetric" and quantizer.rounding == "half_even"
    ours = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()
    return plain and ours and weight.numel() > 0 and not torch.compiler.is_compiling() and kernels.library() is not None


def _encode(quantizer: Quantizer, weight: Tensor, scale: Tensor, *made: Tensor) -> Tensor:
    fmt = quantizer.code_format
    codes: Tensor = _Encode.apply(weight, scale, fmt.min, fmt.max, list(made))  # type: ignore[no-untyped-call]
    return codes


def fitted_and_encoded(quantizer: Quantizer, weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """Codes on the grid that reaches as far as the largest weight of each channel, and its scale, in one pass.

    None where that is not this quantizer's scale, or the weights are not finite: then `fit` says it.
    """
    if not (_is_plain(quantizer, weight) and isinstance(quantizer, Uniform)):
        return None
    if not (isinstance(quantizer.clipping, MaxClipping) and quantizer.signed):
        return None
    fmt, rows = quantizer.code_format, weight.shape[0]
    steps = fmt.max if quantizer.grid == "zero_preserving" else (2**quantizer.bits - 1) / 2
    loaded, out = kernels.library(), POOL.empty_like(weight)
    assert loaded is not None
    scale = torch.empty(rows, *([1] * (weight.dim() - 1)))
    failed = loaded.sq_fit_encode(
        kernels.at(weight), ctypes.c_ssize_t(rows), ctypes.c_ssize_t(weight.numel() // rows), ctypes.c_float(steps),
        ctypes.c_float(fmt.min), ctypes.c_float(fmt.max), kernels.at(scale), kernels.at(out),
        kernels.threads(8 * weight.numel(), rows),
    )  # fmt: skip
    return None if failed else (_encode(quantizer, weight, scale, out), scale)

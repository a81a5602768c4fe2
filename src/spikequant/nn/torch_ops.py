"""`TorchOps`: the law over float tensors that hold integers, with straight-through gradients.

Forward every word gives the very integers of `IntOps`, as long as all of them stay below
2^24 in float32 (2^53 in float64); the caller proves that (`carrier_dtype`).  Backward,
``shr`` passes ``2^-n``, ``clip`` passes inside its range, ``ge`` passes the surrogate of
the difference in real units, and ``const`` passes nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spikequant.law.products import Product
from spikequant.law.rounding import Rounding
from spikequant.nn.surrogate import Surrogate
from spikequant.quantizers.straight_through import round_ste

CARRIER_BITS = {torch.float32: 24, torch.float64: 53}


def carrier_dtype(bound: int) -> torch.dtype:
    """The narrowest float type in which every integer up to `bound` is exact.

    >>> carrier_dtype(2**24 - 1), carrier_dtype(2**24)
    (torch.float32, torch.float64)
    """
    return torch.float32 if bound < 2**24 else torch.float64


def _sum_to(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Sum out what broadcasting had expanded."""
    return gradient.sum_to_size(shape) if gradient.shape != shape else gradient


class _Fire(torch.autograd.Function):
    """``1[a >= b]`` with the surrogate of ``(a - b) * lsb``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, lsb: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(a, b, lsb)
        ctx.surrogate = surrogate
        if a.numel() >= b.numel() and a.dim() >= b.dim():  # the membrane against its thresholds: one pass, no bool
            return torch.ge(a, b, out=torch.empty_like(a))
        return torch.ge(a, b).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, b, lsb = ctx.saved_tensors
        _, needs_b, needs_lsb, _ = ctx.needs_input_grad
        surrogate: Surrogate = ctx.surrogate
        difference = a - b
        if surrogate.name == "atan" and not torch.is_grad_enabled():  # the default, in five passes over the data
            local, unit = gradients[0] / _one_plus_square(difference, lsb, surrogate.slope), surrogate.slope / 2 * lsb
        else:
            local, unit = gradients[0] * surrogate.derivative(difference * lsb), lsb
        toward_a = local * unit
        toward_lsb = _sum_to(local * difference, lsb.shape) * (unit / lsb) if needs_lsb else None
        toward_b = -_sum_to(toward_a, b.shape) if needs_b else None
        return _sum_to(toward_a, a.shape), toward_b, toward_lsb, None


def _one_plus_square(difference: Tensor, lsb: Tensor, slope: float) -> Tensor:
    """``1 + (pi/2 slope difference lsb)^2``, the denominator of the arctangent's derivative."""
    u = difference * (math.pi / 2 * slope * lsb)
    return torch.addcmul(torch.ones((), dtype=u.dtype, device=u.device), u, u)


class _Clip(torch.autograd.Function):
    """Clamp; backward passes where nothing was clamped, which one comparison of input and output tells."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, low: int, high: int) -> Tensor:
        clipped = a.clamp(low, high)
        ctx.save_for_backward(a, clipped)
        return clipped

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, clipped = ctx.saved_tensors
        inside = torch.eq(a, clipped, out=torch.empty_like(a))  # as numbers at once: one pass less than through bool
        return inside.mul_(gradients[0]) if not torch.is_grad_enabled() else gradients[0] * inside, None, None


class _ShiftRight(torch.autograd.Function):
    """``a / 2^n`` rounded by name; backward ``2^-n``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, n: Tensor, rounding: Rounding, noise: Tensor | None) -> Tensor:
        factor = torch.exp2(-n)
        ctx.save_for_backward(factor)
        if rounding in ("half_up", "half_away", "stochastic"):
            return _shift_with_offset(a, n, factor, rounding, noise)
        shifted = a * factor
        if rounding == "floor":
            return shifted.floor_()
        return shifted.trunc_() if rounding == "toward_zero" else shifted.round_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = ctx.saved_tensors
        return gradients[0] * factor, None, None, None


def _shift_with_offset(a: Tensor, n: Tensor, factor: Tensor, rounding: Rounding, noise: Tensor | None) -> Tensor:
    """The roundings that add something below the cut, in integer units before scaling."""
    half = torch.where(n > 0, torch.exp2(n - 1), torch.zeros_like(n))
    if rounding == "half_up":
        return ((a + half) * factor).floor_()
    if rounding == "half_away":
        return torch.sign(a) * ((a.abs() + half) * factor).floor_()
    assert noise is not None
    span = torch.exp2(n).to(torch.int64)
    return ((a + (noise & (span - 1)).to(a.dtype)) * factor).floor_()


class TorchOps:
    """The ten words over tensors.

    Args:
        surrogate: gradient of the spike.
        lsb: real value of one accumulator LSB, broadcastable against the membrane; None
            for a real neuron, whose unit is 1.
        detach_reset: no gradient through the spike that decides a `where`.
        like: a tensor whose type and device the constants take.
        compares: how many comparisons of one step share one surrogate, that of the whole count
            of spikes (`Surrogate.whole`); the first takes all of the gradient.
    """

    def __init__(
        self, *, surrogate: Surrogate, lsb: Tensor | None, detach_reset: bool, like: Tensor, compares: int = 1
    ) -> None:
        self.surrogate, self.detach_reset = surrogate, detach_reset
        self.rounds = lsb is not None
        self.dtype, self.device = like.dtype, like.device
        self.lsb = torch.ones((), dtype=self.dtype, device=self.device) if lsb is None else lsb.to(self.dtype)
        self.compares, self._compared = compares, 0
        self._constants: dict[float, Tensor] = {}

    def begin_step(self) -> None:
        """A new step of the neuron begins."""
        self._compared = 0

    def const(self, value: Any) -> Tensor:
        """A tensor that nothing is learned through."""
        if isinstance(value, Tensor):
            return value.detach()
        if value not in self._constants:
            self._constants[value] = torch.tensor(value, dtype=self.dtype, device=self.device)
        return self._constants[value]

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """``a + b``."""
        return a + b

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        """``a - b``."""
        return a - b

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        """``a * b``."""
        return a * b

    def shr(self, a: Tensor, n: Tensor, rounding: Rounding, noise: Tensor | None = None) -> Tensor:
        """``a / 2^n``: rounded for an integer neuron, plain for a real one."""
        if not self.rounds:
            return a * torch.exp2(-n)
        shifted: Tensor = _ShiftRight.apply(a, n, rounding, noise)  # type: ignore[no-untyped-call]
        return shifted

    def clip(self, a: Tensor, low: int, high: int) -> Tensor:
        """`a` inside ``[low, high]``."""
        clipped: Tensor = _Clip.apply(a, low, high)  # type: ignore[no-untyped-call]
        return clipped

    def ge(self, a: Tensor, b: Tensor) -> Tensor:
        """1 where ``a >= b``; backward the surrogate."""
        self._compared += 1
        if self.compares > 1 and self._compared > 1:
            return torch.ge(a, b).to(a.dtype)
        fired: Tensor = _Fire.apply(a, b, self.lsb, self.surrogate)  # type: ignore[no-untyped-call]
        return fired

    def where(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """`a` where the spike is 1, else `b`."""
        if self.detach_reset:
            condition = condition.detach()
        return torch.lerp(b, a, condition)  # exact at 0 and 1, and one pass over the data

    def max(self, a: Tensor, b: Tensor) -> Tensor:
        """The larger of two."""
        return torch.maximum(a, b)

    def dot(self, x: Tensor, product: Product) -> Tensor:
        """Sum of codes times inputs of a fully connected layer; layers call their own convolution."""
        return x @ torch.as_tensor(product.codes, dtype=x.dtype, device=x.device).T


def encode_ste(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Real data as input codes, ``clip(round_half_even(x / scale))``, straight-through."""
    return round_ste(x / scale, "half_even").clamp(low, high)

"""Rounding of real tensors with straight-through gradients: the only file that rounds a tensor.

Forward is the named rounding, exactly; backward is the identity, and it stays so under a
second derivative, ``torch.func`` and forward mode:

    forward  r = round(x)          backward  dL/dx = dL/dr

Source: Bengio, Leonard, Courville 2013, *Estimating or propagating gradients through
stochastic neurons*, section 4 (the straight-through estimator).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from spikequant.law.errors import DataError, PlanError
from spikequant.law.rounding import ROUNDINGS, Rounding

DIRECTED_ROUNDINGS: tuple[Rounding, ...] = ("floor", "toward_zero", "stochastic")
"""Roundings that turn a quotient one unit in the last place below an integer into the integer below."""


def round_ste(x: Tensor, rounding: Rounding, noise: Tensor | None = None) -> Tensor:
    """`x` rounded to integers under the named rounding, gradient 1.

    ==============  =============================================
    ``floor``       largest integer ``<= x``
    ``toward_zero`` drops the fraction
    ``half_up``     nearest, ties go up
    ``half_away``   nearest, ties away from zero
    ``half_even``   nearest, ties to the even integer
    ``stochastic``  ``floor(x + u)``; `noise` is ``u`` in ``[0, 1)``
    ==============  =============================================

    `noise` has the shape of `x` (or broadcasts); the other roundings ignore it. Nothing is
    drawn here, so a run replays. An integer stays where it is whatever ``u`` is, and
    0.49999997 in float32 rounds to 0 (``floor(x + 0.5)`` would say 1).

    >>> x = torch.tensor([-2.5, -0.5, 0.5, 1.5])
    >>> round_ste(x, "half_up").tolist(), round_ste(x, "half_even").tolist()
    ([-2.0, 0.0, 1.0, 2.0], [-2.0, -0.0, 0.0, 2.0])
    >>> round_ste(x, "stochastic", torch.full((4,), 0.5)).tolist()
    [-2.0, 0.0, 1.0, 2.0]

    Raises:
        DataError: ``stochastic`` without `noise`.
        PlanError: an unknown rounding.
    """
    if rounding not in ROUNDINGS:
        raise PlanError(f"unknown rounding {rounding!r}; expected one of {', '.join(ROUNDINGS)}")
    if rounding == "stochastic" and noise is None:
        raise DataError("stochastic rounding needs its noise; pass noise=, uniform in [0, 1), in the shape of x")
    if not (torch.is_grad_enabled() or torch.compiler.is_compiling() or _derives_forward()):
        return _rounded(x, rounding, noise)  # nothing is derived: a tenth of the cost of a call for a small tensor
    return cast(Tensor, _Round.apply(x, rounding, noise))  # type: ignore[no-untyped-call]


def _derives_forward() -> bool:
    """Inside a transform of torch.func, or of forward mode."""
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


def floor_ste(x: Tensor) -> Tensor:
    """Largest integer ``<= x``, gradient 1.

    >>> floor_ste(torch.tensor([-0.5, 2.75])).tolist()
    [-1.0, 2.0]
    """
    return round_ste(x, "floor")


def ceil_ste(x: Tensor) -> Tensor:
    """Smallest integer ``>= x``, gradient 1.

    >>> ceil_ste(torch.tensor([-1.5, 2.25])).tolist()
    [-1.0, 3.0]
    """
    return -round_ste(-x, "floor")


def straight_through(value: Tensor, x: Tensor) -> Tensor:
    """`value` forward, the gradient of `x` backward; `x` must be finite.

    Written as ``value + (x - x)`` with the second ``x`` detached: the bracket is exactly 0,
    so that the result *is* `value` (``x + (value - x)`` would not be).

    >>> x = torch.tensor(0.3, requires_grad=True)
    >>> y = straight_through(torch.tensor(7.0), 2 * x)
    >>> y.item(), torch.autograd.grad(y, x)[0].item()
    (7.0, 2.0)
    """
    return value.detach() + (x - x.detach())


def snap_ste(x: Tensor) -> Tensor:
    """`x` with every entry that is an integer up to the error of a division set to that integer; gradient 1.

    ``k * s / s`` in floating point can fall one unit in the last place short of ``k``, and a
    directed rounding would then lose a whole code. Entries within 4 eps (relative) of an integer move.

    >>> snap_ste(torch.tensor([6.9999995, 6.99])).tolist() == [7.0, torch.tensor(6.99).item()]
    True
    """
    detached = x.detach()
    nearest = torch.round(detached)
    close = (detached - nearest).abs() <= 4 * torch.finfo(x.dtype).eps * nearest.abs()
    return straight_through(torch.where(close, nearest, detached), x)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` forward, ``factor`` times the gradient backward.

    LSQ's step size learns with ``factor = 1 / sqrt(numel * Qp)`` (Esser et al. 2020, section 2.2).

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> y = scale_gradient(x, 0.25) ** 2
    >>> y.item(), torch.autograd.grad(y, x)[0].item()
    (9.0, 1.5)
    """
    return straight_through(x, x * factor)


class _Round(torch.autograd.Function):
    """Named rounding whose backward and forward-mode derivative are the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, rounding: Rounding, noise: Tensor | None) -> Tensor:
        return _rounded(x, rounding, noise)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep: the derivative is 1 everywhere."""

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, None, None]:
        return grad_outputs[0], None, None

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        return grad_inputs[0].view_as(grad_inputs[0])


def _rounded(x: Tensor, rounding: Rounding, noise: Tensor | None) -> Tensor:
    if rounding == "toward_zero":
        return torch.trunc(x)
    if rounding == "half_even":
        return torch.round(x)
    if rounding == "half_away":
        return torch.copysign(_half_up(x.abs()), x)
    if rounding == "half_up":
        return _half_up(x)
    floor = torch.floor(x)
    if rounding == "floor":
        return floor
    assert noise is not None
    return floor + (x - floor + noise >= 1)  # not floor(x + u): 3 + 0.99999994 is 4 in float32


def _half_up(x: Tensor) -> Tensor:
    floor = torch.floor(x)
    return floor + (x - floor >= 0.5)  # not floor(x + 0.5): 0.49999997 + 0.5 is 1 in float32

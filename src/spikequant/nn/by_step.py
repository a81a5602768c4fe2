"""All steps in one tensor and back, with derivatives of any order that cost as much as the steps themselves.

The second derivative of ``torch.stack`` goes through ``select``, whose gradient fills a tensor of all steps for every
step: work that grows with the square of their number.  Here each of the two is the other's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Stacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *steps: Tensor) -> Tensor:
        return torch.stack(steps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return apart(gradient)


class _Apart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        return x.unbind(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return stacked(gradients)


def stacked(steps: Sequence[Tensor]) -> Tensor:
    """``torch.stack(steps)``: a copy of all steps, one behind the other.

    >>> stacked([torch.zeros(2), torch.ones(2)])
    tensor([[0., 0.],
            [1., 1.]])
    """
    if not _differentiates(steps):
        return torch.stack(tuple(steps))
    found: Tensor = _Stacked.apply(*steps)  # type: ignore[no-untyped-call]
    return found


def apart(x: Tensor) -> tuple[Tensor, ...]:
    """``x.unbind(0)``, a view of every step.

    >>> apart(torch.tensor([1.0, 2.0]))
    (tensor(1.), tensor(2.))
    """
    if not _differentiates([x]):
        return x.unbind(0)
    found: tuple[Tensor, ...] = _Apart.apply(x)  # type: ignore[no-untyped-call]
    return found


def _differentiates(given: Sequence[Tensor]) -> bool:
    """Whether a graph is made, and by nothing but autograd (`torch.func` has rules of its own)."""
    if not torch.is_grad_enabled() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return any(one.requires_grad for one in given)

"""Surrogate gradients: what stands in for the derivative of the spike.

The forward pass is exact, ``s = 1[a >= b]``; the backward pass uses ``g(u)`` with
``u = (a - b) * lsb`` in real units (DESIGN rule 4).  All are twice differentiable almost
everywhere; ``boxcar`` and ``triangle`` have a second derivative of zero, which a Hessian
trace must know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikequant.law.errors import Unsupported


def _atan(u: Tensor, slope: float) -> Tensor:
    return (slope / 2) / (1 + (math.pi / 2 * slope * u) ** 2)


def _sigmoid(u: Tensor, slope: float) -> Tensor:
    p = torch.sigmoid(slope * u)
    return slope * p * (1 - p)


def _fast_sigmoid(u: Tensor, slope: float) -> Tensor:
    return 1 / (1 + slope * u.abs()) ** 2


def _gaussian(u: Tensor, slope: float) -> Tensor:
    return slope / math.sqrt(2 * math.pi) * torch.exp(-((slope * u) ** 2) / 2)


def _triangle(u: Tensor, slope: float) -> Tensor:
    return slope * (1 - (slope * u).abs()).clamp_min(0)


def _boxcar(u: Tensor, slope: float) -> Tensor:
    return slope * ((slope * u).abs() <= 0.5).to(u.dtype)


def _straight_through(u: Tensor, slope: float) -> Tensor:
    return torch.full_like(u, slope)


DERIVATIVES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "atan": _atan,
    "sigmoid": _sigmoid,
    "fast_sigmoid": _fast_sigmoid,
    "gaussian": _gaussian,
    "triangle": _triangle,
    "boxcar": _boxcar,
    "straight_through": _straight_through,
}


@dataclass(frozen=True)
class Surrogate:
    """A surrogate by name and slope.

    ``atan``: ``k/2 / (1 + (pi/2 k u)^2)`` (Fang et al. 2021, SpikingJelly); ``sigmoid``:
    ``k sig(ku)(1 - sig(ku))``; ``fast_sigmoid``: ``1 / (1 + k|u|)^2`` (Zenke & Ganguli
    2018, snnTorch); ``gaussian``; ``triangle``: ``k max(0, 1 - |ku|)``; ``boxcar``;
    ``straight_through``: ``k``.  With `spike`, a spike function of another library, its own
    backward counts, and the name is only said.  `whole`: of a neuron that fires several times in
    a step it is the derivative of the count by the membrane before the first spike (sinabs).

    >>> Surrogate("triangle", 1.0).derivative(torch.tensor([0.0, 0.5, 2.0])).tolist()
    [1.0, 0.5, 0.0]
    """

    name: str = "atan"
    slope: float = 2.0
    mirror: bool = False
    spike: Callable[[Tensor], Tensor] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.spike is not None:
            return
        if self.name not in DERIVATIVES or not self.slope > 0:
            raise Unsupported(
                f"surrogate {self.name!r} with slope {self.slope}; "
                f"expected one of {', '.join(DERIVATIVES)} and a slope > 0"
            )

    def derivative(self, u: Tensor) -> Tensor:
        """``g(u)``, `u` in real units."""
        u = -u if self.mirror else u
        return DERIVATIVES[self.name](u, self.slope) if self.spike is None else slope_of(self.spike, u)

    def mirrored(self) -> Surrogate:
        """``g(-u)``: the same for an even derivative."""
        return self if self.spike is None else replace(self, mirror=not self.mirror)


def slope_of(spike: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """The derivative that a spike function gives itself in its backward pass."""
    with torch.enable_grad():
        at = u if u.requires_grad else u.detach().requires_grad_()
        fired = spike(at)
        if not fired.requires_grad:
            return torch.zeros_like(u)
        (slope,) = torch.autograd.grad(fired.sum(), at, create_graph=u.requires_grad)
    return slope

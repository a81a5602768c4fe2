"""Binary weights: the sign, scaled by the mean magnitude.

    codes = sign(x) with sign(0) = +1,  scale = mean|x|,  d codes/dx = 1[|x| <= ste_limit] / scale

The mean runs over the values that share a scale.  Source: Rastegari et al., *XNOR-Net*, ECCV 2016, equations 4 to 6
(BWN) and section 3.1 (the gradient of the sign passes where ``|x| <= 1``, in the units of `x`, not of the scale).
The paper also multiplies that gradient by the scale; here ``codes * scale`` passes it with slope 1, as for all
quantizers, a factor that the learning rate absorbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import finite, mean_like, scale_shape, usable_scale, widened
from spikequant.quantizers.interface import ScaleMode
from spikequant.quantizers.straight_through import straight_through


@final
@dataclass(frozen=True)
class Binary:
    """Codes -1 and +1, stored in 1 bit; `ste_limit` is the magnitude up to which the gradient passes.

    >>> x = torch.tensor([-3.0, -0.5, 0.0, 0.5], requires_grad=True)
    >>> q = Binary()
    >>> codes = q.codes(x, q.fit(x))
    >>> codes.tolist(), q.fit(x).item(), torch.autograd.grad(codes.sum(), x)[0].tolist()
    ([-1.0, -1.0, 1.0, 1.0], 1.0, [0.0, 1.0, 1.0, 1.0])

    Raises:
        PlanError: `ste_limit` is not a number above 0.
    """

    ste_limit: float = 1.0
    name: ClassVar[str] = "binary"
    bits: ClassVar[int] = 1
    scale_mode: ClassVar[ScaleMode] = "dynamic"
    rounding: ClassVar[Rounding] = "half_up"

    def __post_init__(self) -> None:
        if not isinstance(self.ste_limit, (int, float)) or isinstance(self.ste_limit, bool) or not self.ste_limit > 0:
            raise PlanError(
                f"binary: ste_limit is {self.ste_limit!r}; expected a number above 0, the magnitude of x up to which"
                " the gradient passes (1.0 in XNOR-Net)"
            )

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes (their arithmetic needs 2 bits, their storage 1)."""
        return IntFormat(bits=2, narrow=True)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return (-1, 1)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """Mean magnitude; 1 for an all-zero channel (whose codes are +1: a binary grid has no zero).

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        size = finite(x).abs()
        return usable_scale(mean_like(size, size.new_empty(scale_shape(x, channel_axis))))

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x` in its shape, float32 or float64, with straight-through gradients."""
        x = widened(x)
        inside = x.detach().abs() <= self.ste_limit
        value = torch.where(x.detach() >= 0, 1.0, -1.0).to(x.dtype)
        value = torch.where(x.detach().isnan(), torch.nan, value)
        return straight_through(value, torch.where(inside, x / scale, 0.0))

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`."""
        return scale

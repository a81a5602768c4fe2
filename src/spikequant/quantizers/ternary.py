"""Ternary weight networks: codes -1, 0, +1 around a threshold.

    codes = sign(x) 1[|x| > D],  D = 0.7 mean|x|,  scale = mean of |x| over |x| > D

Means run over the values that share a scale.  Source: Li, Zhang, Liu, *Ternary weight networks*, 2016,
equations 4 to 6; every weight receives the gradient (``d codes/dx = 1/scale``), there is no clipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import finite, mean_like, scale_shape, usable_scale, widened
from spikequant.quantizers.interface import ScaleMode
from spikequant.quantizers.straight_through import straight_through

TERNARY_THRESHOLD = 0.7


@final
@dataclass(frozen=True)
class Ternary:
    """Codes -1, 0, +1, stored in 2 bits.

    The threshold is a mean over `x`, so the codes of a slice are not the slice of the codes: quantize whole tensors.
    It does not move with the scale, and a value *at* the threshold is 0.

    >>> x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 5.0])
    >>> Ternary().fit(x).item(), Ternary().codes(x, Ternary().fit(x)).tolist()  # D = 0.7 * 2
    (4.0, [-1.0, 0.0, 0.0, 0.0, 1.0])
    """

    name: ClassVar[str] = "ternary"
    bits: ClassVar[int] = 2
    scale_mode: ClassVar[ScaleMode] = "dynamic"
    rounding: ClassVar[Rounding] = "half_even"

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes."""
        return IntFormat(bits=2, narrow=True)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return (-1, 0, 1)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """Mean magnitude above the threshold; 1 for an all-zero channel.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        size = finite(x).abs()
        like = size.new_empty(scale_shape(x, channel_axis))
        return usable_scale(mean_like(size, like, where=_is_large(size, like)))

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x` in its shape, float32 or float64, with straight-through gradients."""
        x = widened(x)
        value = torch.where(_is_large(x.detach().abs(), scale), torch.sign(x.detach()), 0.0)
        return straight_through(value, x / scale)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`."""
        return scale


def _is_large(size: Tensor, scale: Tensor) -> Tensor:
    return size > TERNARY_THRESHOLD * mean_like(size, scale)

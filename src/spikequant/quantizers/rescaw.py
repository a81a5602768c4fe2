"""ReScaW: weights rescaled by their mean magnitude before they are quantized, an even number of levels without a zero.

    w_q = gamma ( 2/S round( S/2 (clip(w / gamma, -1, 1) + 1) ) - 1 ),  gamma = mean|w|,  S = 2^b - 1

In integers: odd codes ``-S, -S + 2 .. S`` at the scale ``gamma / S``.  The mean runs over the values that share a
scale and follows the weights; weights beyond it are clipped, which training makes up for and rounding a trained
network of many bits does not.  One bit is the sign at the mean magnitude, as `Binary`.

Source: Wei, Zhang, Belatreche and others, *QP-SNN: quantized and pruned spiking neural networks*, ICLR 2025, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import finite, mean_like, scale_shape, usable_scale, widened
from spikequant.quantizers.interface import ScaleMode, check_bits
from spikequant.quantizers.straight_through import round_ste


@final
@dataclass(frozen=True)
class ReScaW:
    """Odd codes within the mean magnitude, 1 to 8 bits.

    >>> import torch
    >>> q, x = ReScaW(2), torch.tensor([-3.0, -0.5, 0.2, 0.9])
    >>> q.codes(x, q.fit(x)).tolist(), round(q.fit(x).item(), 4)
    ([-3.0, -1.0, 1.0, 3.0], 0.3833)

    Raises:
        PlanError: bits out of range.
    """

    bits: int
    name: ClassVar[str] = "rescaw"
    scale_mode: ClassVar[ScaleMode] = "dynamic"
    rounding: ClassVar[Rounding] = "half_up"

    def __post_init__(self) -> None:
        check_bits(self.name, self.bits, 1, 8)

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes; odd ones need one bit more than is stored."""
        return IntFormat(bits=self.bits + 1, narrow=True)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return range(self.code_format.min, self.code_format.max + 1, 2)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """``mean|x| / (2^b - 1)``; 1 for an all-zero channel.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        size = finite(x).abs()
        return usable_scale(mean_like(size, size.new_empty(scale_shape(x, channel_axis))) / self.code_format.max)

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x` in its shape, float32 or float64, with straight-through gradients."""
        top = self.code_format.max
        units = (widened(x) / scale).clamp(-top, top)
        return 2 * round_ste((units + top) / 2, self.rounding) - top

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`."""
        return scale

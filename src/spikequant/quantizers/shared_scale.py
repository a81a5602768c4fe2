"""One scale for the weights and the membrane that they are added to: an integer network without a multiplier.

    k_w = round(clip(w / s, -Q, Q)),  k_u = round(clip(u / s, -Q, Q)),  Q = 2^(b-1) - 1
    k_h = k_u + sum k_w,  spike where k_h >= ceil(theta / s)

Both kinds of codes count the same ``s``, so that a membrane is loaded, added to and stored without a rescale; the real
threshold becomes an integer once.  `s` is learned, per layer with ``per_channel = false`` as published, or per channel.
The weights are this quantizer; the membrane takes part by ``unit = "weight"`` in its role of the plan, which
`Plan.uniform(weight_quantizer="shared_scale", membrane_bits=...)` sets.

Source: Yin, Li, Moitra, Panda, *MINT: multiplier-less integer quantization for energy efficient spiking neural
networks*, ASP-DAC 2024.  The authors' program also squashes the weights by tanh before it clips them; here the weights
are clipped as they are, so that a trained network starts where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, final, get_args

from torch import Tensor

from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import finite, mean_like, scale_shape, usable_scale, widened
from spikequant.quantizers.clipping import MSEClipping, fit_scale
from spikequant.quantizers.interface import ScaleMode, check_bits, check_choice
from spikequant.quantizers.learned import positive_scale
from spikequant.quantizers.straight_through import round_ste

Start = Literal["mse", "published"]


@final
@dataclass(frozen=True)
class SharedScale:
    """Codes ``-Q .. Q`` with a learned scale, 2 to 8 bits.

    Args:
        bits: of a weight; the membrane has bits of its own on the same scale.
        start_from: ``mse``: the scale of least squared error; ``published``: ``s = 2 mean|w| / (Q sqrt(Q))``.

    >>> import torch
    >>> q, x = SharedScale(3), torch.tensor([-2.0, -0.5, 0.5, 1.0])
    >>> q.codes(x, torch.tensor(0.5)).tolist(), round(SharedScale(3, start_from="published").fit(x).item(), 4)
    ([-3.0, -1.0, 1.0, 2.0], 0.3849)

    Raises:
        PlanError: bits out of range, or an unknown start.
    """

    bits: int
    _: KW_ONLY
    start_from: Start = "mse"
    name: ClassVar[str] = "shared_scale"
    scale_mode: ClassVar[ScaleMode] = "learned"
    rounding: ClassVar[Rounding] = "half_even"

    def __post_init__(self) -> None:
        check_bits(self.name, self.bits, 2, 8)
        check_choice(self.name, "start_from", self.start_from, get_args(Start))

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes."""
        return IntFormat(bits=self.bits, narrow=True)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return range(self.code_format.min, self.code_format.max + 1)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """The scale that training starts from; 1 for an all-zero channel.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        top = self.code_format.max
        if self.start_from == "mse":
            return fit_scale(
                x, channel_axis, MSEClipping(), steps=top, magnitudes=top + 1, signed=True, codes=self.codes
            )
        values = finite(x)
        mean = mean_like(values.abs(), values.new_empty(scale_shape(x, channel_axis)))
        return usable_scale(2 * mean / (top * math.sqrt(top)))

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x` in its shape, float32 or float64, with straight-through gradients."""
        return round_ste((widened(x) / scale).clamp(self.code_format.min, self.code_format.max), self.rounding)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`, kept positive."""
        return positive_scale(scale)

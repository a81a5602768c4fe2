"""LSQ: uniform levels whose step size is learned.

    w_q = s * round(clip(w / s, -Qn, Qp))
    dw_q/ds = round(w/s) - w/s inside, -Qn or Qp outside;  gradient of s times 1/sqrt(N Qp)
    s_0 = 2 mean|w| / sqrt(Qp)

``Qn = 2^(b-1), Qp = 2^(b-1) - 1`` signed, ``Qn = 0, Qp = 2^b - 1`` unsigned; ``N`` values share one ``s``.
Source: Esser et al., *Learned step size quantization*, ICLR 2020, equations 1 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

from torch import Tensor

from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import finite, mean_like, scale_shape, usable_scale, widened
from spikequant.quantizers.interface import ScaleMode, check_bits, check_choice, check_modes
from spikequant.quantizers.learned import positive_scale
from spikequant.quantizers.straight_through import DIRECTED_ROUNDINGS, round_ste, scale_gradient, snap_ste


@final
@dataclass(frozen=True)
class LSQ:
    """Two's complement codes (or unsigned ones) with a learned scale; 2 to 16 bits signed, 1 to 16 unsigned.

    >>> import torch
    >>> q = LSQ(3)
    >>> x = torch.tensor([-2.0, -0.5, 0.5, 1.0])
    >>> q.codes(x, torch.tensor(0.25)).tolist(), round(q.fit(x).item(), 4)  # 2 * 1 / sqrt(3)
    ([-4.0, -2.0, 2.0, 3.0], 1.1547)

    Raises:
        PlanError: bits out of range, or an unknown rounding.
    """

    bits: int
    _: KW_ONLY
    signed: bool = True
    rounding: Rounding = "half_even"
    name: ClassVar[str] = "lsq"
    scale_mode: ClassVar[ScaleMode] = "learned"

    def __post_init__(self) -> None:
        check_choice("lsq", "signed", self.signed, (True, False))
        check_bits("lsq", self.bits, 2 if self.signed else 1, 16)
        check_modes("lsq", self.rounding, self.scale_mode)

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes."""
        return IntFormat(bits=self.bits, signed=self.signed)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return range(self.code_format.min, self.code_format.max + 1)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """Initial scale ``2 mean|x| / sqrt(Qp)`` (equation 5's text); 1 for an all-zero channel.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        values = finite(x)
        mean = mean_like(values.abs(), values.new_empty(scale_shape(x, channel_axis)))
        return usable_scale(2 * mean / math.sqrt(self.code_format.max))

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x` in its shape, float32 or float64, with straight-through gradients."""
        units = (widened(x) / scale).clamp(self.code_format.min, self.code_format.max)
        return round_ste(snap_ste(units) if self.rounding in DIRECTED_ROUNDINGS else units, self.rounding, noise)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`, kept positive, its gradient times ``1 / sqrt(N Qp)``: the whole gradient, so call it once."""
        per_scale = x.numel() // max(scale.numel(), 1)
        return scale_gradient(positive_scale(scale), 1 / math.sqrt(max(per_scale, 1) * self.code_format.max))

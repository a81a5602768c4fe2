"""Fixed point Qi.f: the binary point stands where the plan says, whatever the data.

    eps = 2^-f,  Qi.f: [-2^(i-1), 2^(i-1) - eps],  UQi.f: [0, 2^i - eps]
    TR(x) = eps floor(x/eps)     RN(x) = eps floor(x/eps + 1/2)     SR(x) = eps floor(x/eps + u)

The sign counts among the ``i`` integer bits: Q1.4 has 5 bits and reaches from -1 to 0.9375.
Source: Putra, Shafique, *Q-SpiNN*, IJCNN 2021 (formats Q1.4, Q11.16; TR, RN, SR).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import finite, scale_shape, widened
from spikequant.quantizers.interface import ScaleMode, check_modes
from spikequant.quantizers.straight_through import round_ste

PAPER_ROUNDINGS: Final[dict[str, Rounding]] = {"TR": "floor", "RN": "half_up", "SR": "stochastic"}
"""Q-SpiNN's names: truncation, round to nearest, stochastic rounding."""
_FORMAT = re.compile(r"(U?)Q([0-9]{1,2})\.([0-9]{1,2})")


@final
@dataclass(frozen=True)
class FixedPoint:
    """Codes ``x / 2^-f`` of ``i + f`` bits, 1 to 32; the scale is the constant ``2^-f``.

    `rounding` also takes the paper's names, ``TR``, ``RN`` and ``SR``, and stores ours.  Codes of more than 24 bits
    come back as float64, which alone holds them.

    >>> import torch
    >>> x = torch.tensor([-2.0, -0.1, 0.1, 0.99])
    >>> [(FixedPoint("Q1.4", r).codes(x, torch.tensor(2**-4)) / 16).tolist() for r in ("TR", "RN")]
    [[-1.0, -0.125, 0.0625, 0.9375], [-1.0, -0.125, 0.125, 0.9375]]
    >>> FixedPoint("Q1.4", "TR").rounding, FixedPoint("UQ0.8").code_format.max
    ('floor', 255)

    Raises:
        PlanError: a format that is not Qi.f or UQi.f, has no bits or more than 32, or an unknown rounding.
    """

    format: str
    rounding: Rounding = "half_up"
    name: ClassVar[str] = "fixed_point"
    scale_mode: ClassVar[ScaleMode] = "fixed"

    def __post_init__(self) -> None:
        if not isinstance(self.format, str) or not _FORMAT.fullmatch(self.format) or not 1 <= self.bits <= 32:
            raise PlanError(
                f"fixed_point: format is {self.format!r}; expected 'Qi.f' or unsigned 'UQi.f' with i + f from 1 to 32,"
                " the sign counted in i (Q1.4 is 5 bits, -1 to 0.9375)"
            )
        object.__setattr__(self, "rounding", PAPER_ROUNDINGS.get(self.rounding, self.rounding))
        check_modes("fixed_point", self.rounding, self.scale_mode)

    @property
    def signed(self) -> bool:
        """Whether the format has a sign."""
        return not self.format.startswith("U")

    @property
    def fraction_bits(self) -> int:
        """``f``."""
        return int(self.format.split(".")[1])

    @property
    def bits(self) -> int:
        """``i + f``."""
        return int(self.format.lstrip("UQ").split(".")[0]) + self.fraction_bits

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes."""
        return IntFormat(bits=self.bits, signed=self.signed)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return range(self.code_format.min, self.code_format.max + 1)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """``2^-f``, whatever finite values `x` has.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        return finite(x).new_full(scale_shape(x, channel_axis), 2.0**-self.fraction_bits)

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x` in its shape, with straight-through gradients; dividing by ``2^-f`` is exact."""
        units = widened(x, self.bits) / scale
        return round_ste(units.clamp(self.code_format.min, self.code_format.max), self.rounding, noise)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`."""
        return scale

"""Levels that crowd below the threshold, with 0 on the grid and the threshold halfway between two levels.

A membrane that is stored after fire and reset decides its next spike by its distance to the threshold, so levels are
spent there.  Of ``m + 1`` levels ``0 = f_0 < ... < f_m < 1`` (shares of the threshold) every gap is ``r`` times the
one below it, and half a gap more is the threshold:

    f_k = g (1 + r + ... + r^(k-1)),   f_m + g r^m / 2 = 1,   r^m = 1 / density

A signed grid has levels below 0 as well, equally spaced down to ``-1``.  All of them are integers in units of
``threshold / per_threshold``; a value takes the nearest one by a search over the sorted boundaries, O(log levels) for
each of n values, never a table of n x levels distances.

Source: Venkatesh, Marinescu, Eshraghian, *SQUAT: stateful quantization-aware training in recurrent spiking neural
networks*, NICE 2024: levels whose spacing grows geometrically away from the threshold.  There the threshold is a level
and 0 need not be one; here a reset membrane is exactly 0, and what is compared with the threshold is never ambiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import ClassVar, final

import torch
from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import widened
from spikequant.quantizers.clipping import MaxClipping, fit_scale
from spikequant.quantizers.interface import ScaleMode, check_bits, check_choice
from spikequant.quantizers.straight_through import straight_through

FINENESS = 5


@final
@dataclass(frozen=True)
class ThresholdCentred:
    """``2^bits`` levels, 1 to 6 bits (2 to 6 with a sign); a quarter of them below 0 where there is a sign.

    Args:
        bits: of a level's number.
        signed: whether states below 0 have levels.
        density: how many times finer the levels are at the threshold than at 0; 1 is an equally spaced grid.

    >>> ThresholdCentred(2, signed=False, density=8).levels, ThresholdCentred(2, signed=False).per_threshold
    ((0, 71, 106, 124), 128)
    >>> ThresholdCentred(3, density=1).levels
    (-256, -128, 0, 47, 93, 140, 186, 233)

    Raises:
        PlanError: bits or density out of range.
    """

    bits: int
    _: KW_ONLY
    signed: bool = True
    density: float = 4.0
    name: ClassVar[str] = "threshold_centred"
    scale_mode: ClassVar[ScaleMode] = "dynamic"
    rounding: ClassVar[Rounding] = "half_up"

    def __post_init__(self) -> None:
        check_choice(self.name, "signed", self.signed, (True, False))
        check_bits(self.name, self.bits, 2 if self.signed else 1, 6)
        given = self.density
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not 1 <= given <= 16:
            raise PlanError(f"threshold_centred: density is {given!r}; expected a number from 1 to 16")

    @property
    def per_threshold(self) -> int:
        """How many units of the levels make a threshold."""
        return int(2 ** (self.bits + FINENESS))

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        below = 2**self.bits // 4 if self.signed else 0
        above = 2**self.bits - 1 - below
        gaps = [self.density ** (-k / above) for k in range(above)]
        whole = sum(gaps) + 1 / (2 * self.density)
        up = [int(self.per_threshold * sum(gaps[:k]) / whole + 0.5) for k in range(1, above + 1)]
        return (*(-self.per_threshold * k // below for k in range(below, 0, -1)), 0, *up)

    @property
    def code_format(self) -> IntFormat:
        """Integers that hold the levels."""
        if not self.signed:
            return IntFormat(bits=self.levels[-1].bit_length(), signed=False)
        return IntFormat(bits=self.bits + FINENESS + 2, narrow=True)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """The scale at which the outermost level is the largest magnitude; 1 for an all-zero channel.

        A membrane does not need it: its scale is the threshold.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        top = max(-self.levels[0], self.levels[-1])
        return fit_scale(
            x, channel_axis, MaxClipping(), steps=top, magnitudes=len(self.levels), signed=self.signed, codes=self.codes
        )

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """The nearest level, a tie upwards, with straight-through gradients."""
        units = (widened(x) / scale).clamp(self.levels[0], self.levels[-1])
        middles = units.new_tensor([(low + high) / 2 for low, high in pairwise(self.levels)])
        index = torch.bucketize(units.detach().contiguous(), middles, right=True)
        return straight_through(units.new_tensor(self.levels)[index], units)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`."""
        return scale

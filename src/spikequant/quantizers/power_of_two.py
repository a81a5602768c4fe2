"""Power-of-two levels: a product with a code is a shift.

    codes = 0, +-1, +-2, +-4 ... +-2^(n-1),  n = 2^(b-1) - 1,  scale = c / 2^(n-1)

All levels are integers in the common LSB ``scale``.  The nearest level is taken in the real domain (not in the
logarithm): the boundary between ``2^k`` and ``2^(k+1)`` is ``1.5 * 2^k``, the one between 0 and 1 is 0.5; a tie
goes away from zero.  The gradient is straight-through inside ``[-c, c]``, 0 outside.

Sources: Miyashita et al. 2016 (logarithmic levels); the level set {-4, -2, -1, 0, 1, 2, 4} of 3 bits as in
Yang et al., *Quantization Networks*, CVPR 2019, and Shymyrbay et al. 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import widened
from spikequant.quantizers.clipping import (
    Clipping,
    MaxClipping,
    check_clipping,
    check_equal_steps,
    default_scale_mode,
    fit_scale,
)
from spikequant.quantizers.interface import ScaleMode, check_modes
from spikequant.quantizers.learned import positive_scale
from spikequant.quantizers.straight_through import straight_through
from spikequant.quantizers.uniform import BY_CLIPPING


@final
@dataclass(frozen=True)
class PowerOfTwo:
    """Zero and ``2^(b-1) - 1`` powers of two of either sign; 2 to 5 bits.

    >>> q = PowerOfTwo(3)
    >>> x = torch.tensor([-4.0, -1.5, 0.4, 0.5, 2.9, 3.0])
    >>> q.codes(x, q.fit(x)).tolist()
    [-4.0, -2.0, 0.0, 1.0, 2.0, 4.0]
    >>> q.levels, PowerOfTwo(5).code_format.bits
    ((-4, -2, -1, 0, 1, 2, 4), 16)

    Raises:
        PlanError: bits outside 2 to 5 (6 bits would need codes up to 2^30), or KL clipping.
    """

    bits: int
    _: KW_ONLY
    clipping: Clipping = field(default_factory=MaxClipping)
    scale_mode: ScaleMode = BY_CLIPPING
    name: ClassVar[str] = "power_of_two"
    rounding: ClassVar[Rounding] = "half_away"

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 2 <= self.bits <= 5:
            raise PlanError(
                f"power_of_two: bits is {self.bits!r}; expected an integer from 2 to 5 (b bits reach 2^(2^(b-1)-2):"
                " 16384 at 5, 2^30 at 6, beyond what sums of codes can hold); use Uniform for more levels"
            )
        check_clipping("power_of_two", self.clipping)
        check_equal_steps("power_of_two", self.clipping)
        if self.scale_mode == BY_CLIPPING:
            object.__setattr__(self, "scale_mode", default_scale_mode(self.clipping))
        check_modes("power_of_two", self.rounding, self.scale_mode)

    @property
    def magnitudes(self) -> tuple[int, ...]:
        """The positive levels, ascending."""
        return tuple(2**k for k in range(2 ** (self.bits - 1) - 1))

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes, in the common LSB."""
        return IntFormat(bits=self.magnitudes[-1].bit_length() + 1, narrow=True)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return (*(-m for m in reversed(self.magnitudes)), 0, *self.magnitudes)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """Scale ``c / 2^(n-1)`` with the limit ``c`` of the clipping rule; 1 for an all-zero channel.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        return fit_scale(
            x,
            channel_axis,
            self.clipping,
            steps=self.magnitudes[-1],
            magnitudes=len(self.magnitudes) + 1,
            signed=True,
            codes=self.codes,
        )

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x` in its shape, float32 or float64, with straight-through gradients."""
        top = self.magnitudes[-1]
        units = (widened(x) / scale).clamp(-top, top)
        starts = units.new_tensor([0.5, *(1.5 * m for m in self.magnitudes[:-1])])
        index = torch.bucketize(units.detach().abs().contiguous(), starts, right=True)
        magnitude = units.new_tensor([0, *self.magnitudes])[index]
        return straight_through(torch.copysign(magnitude, units), units)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`; a learned one is kept positive."""
        return positive_scale(scale) if self.scale_mode == "learned" else scale

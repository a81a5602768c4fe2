"""Equally spaced levels on ``[-c, c]`` or ``[0, c]``, on one of three grids.

======================  ===============================  ==========================  ===================
grid                    codes                            scale                       zero is a level
======================  ===============================  ==========================  ===================
``zero_preserving``     ``-(2^(b-1)-1) .. 2^(b-1)-1``    ``c / (2^(b-1)-1)``         yes
``symmetric``           odd ``-(2^b-1) .. 2^b-1``        ``c / (2^b-1)`` = delta/2   no
``full_range``          ``-2^(b-1) .. 2^(b-1)-1``        ``2c / (2^b-1)``            yes, not symmetric
both, without a sign    ``0 .. 2^b-1``                   ``c / (2^b-1)``             yes
======================  ===============================  ==========================  ===================

Without a sign ``zero_preserving`` and ``full_range`` are one grid and ``symmetric`` is refused.

``symmetric`` has the levels ``delta (k + 1/2)`` with ``delta = 2c/(2^b-1)``; half of delta is the scale, so that
its codes are (odd) integers.  ``full_range`` takes PyTorch's symmetric scale: no value of ``[-c, c]`` is further
than half a step from a level.  At 2 bits the three differ a lot, which is why the grid is an option.

Sources: Smith, Whitehill, Ganji 2026 (uniform quantization on ``[-c, c]``) and common practice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import ClassVar, Literal, cast, final, get_args

from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import widened
from spikequant.quantizers.clipping import Clipping, MaxClipping, check_clipping, default_scale_mode, fit_scale
from spikequant.quantizers.interface import ScaleMode, check_bits, check_choice, check_modes
from spikequant.quantizers.learned import positive_scale
from spikequant.quantizers.straight_through import DIRECTED_ROUNDINGS, round_ste, snap_ste

Grid = Literal["zero_preserving", "symmetric", "full_range"]
GRIDS: tuple[Grid, ...] = get_args(Grid)
BY_CLIPPING = cast(ScaleMode, "by_clipping")
"""Default of `scale_mode`: ``dynamic`` under `MaxClipping`, ``fixed`` under a rule that costs a search."""


@final
@dataclass(frozen=True)
class Uniform:
    """``codes = round(clip(x / scale, lo, hi))`` on the grid of the table above, 1 to 16 bits.

    On the ``symmetric`` grid the rounding acts on the index ``k`` of the level ``2k + 1``.  Under a directed rounding
    a quotient that is an integer up to the error of the division counts as that integer.

    >>> import torch
    >>> from spikequant.quantizers import FixedClipping
    >>> x = torch.tensor([-0.7, -0.15, 0.0, 0.25, 0.55])
    >>> for grid in GRIDS:
    ...     q = Uniform(3, grid=grid, clipping=FixedClipping(0.7))
    ...     print(f"{grid:16}", [int(c) for c in q.codes(x, q.fit(x))], list(q.levels))
    zero_preserving  [-3, -1, 0, 1, 2] [-3, -2, -1, 0, 1, 2, 3]
    symmetric        [-7, -1, 1, 3, 5] [-7, -5, -3, -1, 1, 3, 5, 7]
    full_range       [-4, -1, 0, 1, 3] [-4, -3, -2, -1, 0, 1, 2, 3]

    Raises:
        PlanError: bits outside 1 to 16, unknown grid, rounding or mode, ``symmetric`` without a sign,
            or 1 signed bit on the zero-preserving grid.
    """

    bits: int
    _: KW_ONLY
    grid: Grid = "zero_preserving"
    signed: bool = True
    clipping: Clipping = field(default_factory=MaxClipping)
    rounding: Rounding = "half_even"
    scale_mode: ScaleMode = BY_CLIPPING
    name: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        check_bits("uniform", self.bits, 1, 16)
        check_choice("uniform", "grid", self.grid, GRIDS)
        check_choice("uniform", "signed", self.signed, (True, False))
        check_clipping("uniform", self.clipping)
        if self.scale_mode == BY_CLIPPING:
            object.__setattr__(self, "scale_mode", default_scale_mode(self.clipping))
        check_modes("uniform", self.rounding, self.scale_mode)
        if not self.signed and self.grid == "symmetric":
            raise PlanError("uniform: the symmetric grid has a sign; use grid='zero_preserving' with signed=False")
        if self.signed and self.grid == "zero_preserving" and self.bits == 1:
            raise PlanError(
                "uniform: 1 signed bit on the zero-preserving grid holds only 0;"
                " use Binary() for the codes -1 and +1, grid='symmetric', or signed=False"
            )

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes; the odd ones of ``symmetric`` need one bit more than is stored."""
        if self.grid == "symmetric":
            return IntFormat(bits=self.bits + 1, narrow=True)
        return IntFormat(bits=self.bits, signed=self.signed, narrow=self.signed and self.grid == "zero_preserving")

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return range(self.code_format.min, self.code_format.max + 1, 2 if self.grid == "symmetric" else 1)

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """Scale ``c / steps`` with the limit ``c`` of the clipping rule; 1 for an all-zero channel.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        steps: float = self.code_format.max
        if self.signed and self.grid == "full_range":
            steps = (2**self.bits - 1) / 2
        trial = replace(self, rounding="half_even") if self.rounding == "stochastic" else self  # a search draws nothing
        return fit_scale(
            x,
            channel_axis,
            self.clipping,
            steps=steps,
            magnitudes=2 ** (self.bits - int(self.signed)),
            signed=self.signed,
            codes=trial.codes,
        )

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x` in its shape, float32 or float64, with straight-through gradients."""
        units = (widened(x) / scale).clamp(self.code_format.min, self.code_format.max)
        if self.rounding in DIRECTED_ROUNDINGS:
            units = snap_ste(units)
        if self.grid == "symmetric":
            return 2 * round_ste((units - 1) / 2, self.rounding, noise) + 1
        return round_ste(units, self.rounding, noise)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`; a learned one is kept positive."""
        return positive_scale(scale) if self.scale_mode == "learned" else scale

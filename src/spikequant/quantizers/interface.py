"""What a quantizer is: a frozen description that turns real tensors into integer codes on a grid.

    x  ~  codes * scale            codes = round(clip(x / scale, lo, hi))

It holds no tensor.  Gradients of `codes` are those of its own formula with the rounding
taken as the identity: inside the range ``d codes/dx = 1/scale`` and
``d codes/dscale = -x/scale^2``, outside both are 0.  ``codes * scale`` then has the usual
fake-quantization gradients (1 and ``codes - x/scale`` inside, 0 and ``codes`` outside).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import ROUNDINGS, Rounding

ScaleMode = Literal["fixed", "dynamic", "learned"]
"""``fixed``: fitted once by calibration, then kept.  ``dynamic``: refitted (detached) whenever the
tensor changed.  ``learned``: fitted once, then a parameter that receives gradients."""
SCALE_MODES: tuple[ScaleMode, ...] = get_args(ScaleMode)


class Quantizer(Protocol):
    """A rule from reals to integer codes; `check_quantizer` says whether a class keeps it."""

    @property
    def name(self) -> str:
        """Key of the class in `QUANTIZERS`."""
        ...

    @property
    def bits(self) -> int:
        """True bits of one stored code (ternary: 2)."""
        ...

    @property
    def scale_mode(self) -> ScaleMode:
        """Where the scale comes from while the network runs."""
        ...

    @property
    def rounding(self) -> Rounding:
        """The rounding; ``stochastic`` means that `codes` needs noise."""
        ...

    @property
    def code_format(self) -> IntFormat:
        """Integers that the codes occupy, so that sums of them can be bounded."""
        ...

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        ...

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """Scale > 0 for `x`, detached: shape ``()``, or 1 on every axis but the channel's.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        ...

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Codes of `x`: integers in a float tensor of its shape, with straight-through gradients."""
        ...

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale` as every expression of the graph must use it, `codes` and ``codes * scale`` alike.

        Same values; its gradient may be rescaled (LSQ) and its sign is kept positive (learned scales).
        """
        ...


def check_choice(owner: str, field: str, value: object, allowed: Sequence[object]) -> None:
    """Raise unless `value` is one of `allowed`.

    Raises:
        PlanError: it is not.
    """
    if value not in allowed:
        options = ", ".join(map(repr, allowed))
        raise PlanError(f"{owner}: {field} is {value!r}; expected one of {options}")


def check_bits(owner: str, bits: object, low: int, high: int) -> None:
    """Raise unless `bits` is an integer of ``low .. high``.

    Raises:
        PlanError: it is not.
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or not low <= bits <= high:
        raise PlanError(f"{owner}: bits is {bits!r}; expected an integer from {low} to {high}")


def check_modes(owner: str, rounding: object, scale_mode: object) -> None:
    """Raise unless both are known names.

    Raises:
        PlanError: one of them is not.
    """
    check_choice(owner, "rounding", rounding, ROUNDINGS)
    check_choice(owner, "scale_mode", scale_mode, SCALE_MODES)

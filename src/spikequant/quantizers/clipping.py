"""How far a grid reaches: the magnitude beyond which values of a channel are clipped.

Every rule reads ``rows [channels, values]`` and answers one limit per channel:

==============  ==================================================  ==========================
``max``         largest magnitude                                    common practice
``percentile``  percentile of the magnitudes                         common practice
``mse``         least squared error of the quantized values          Shin et al. 2016 and others
``kl``          least divergence of the clipped histogram            TensorRT (Migacz, GTC 2017)
``fixed``       a number that the plan names                         Smith et al. 2026
==============  ==================================================  ==========================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import torch
from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.quantizers.channels import channel_rows, finite, largest, scale_shape, usable_scale
from spikequant.quantizers.interface import ScaleMode, check_choice
from spikequant.quantizers.kl import least_divergence_limit

FakeQuantize = Callable[[Tensor, Tensor], Tensor]
"""``(rows [C, M], limit [C, 1]) -> rows`` as they would come back from the codes."""
BLOCK = 2**18
"""Values that a search looks at together: a megabyte, so that its copies of them stay in a processor's cache."""

PATIENCE = 4
"""Candidates of the search between two looks whether it is over."""
FLOAT_SUM = 1e-3
"""More than the relative error of a float32 sum of squares."""


class Clipping(Protocol):
    """A rule for the clip limit; it holds no tensor."""

    @property
    def name(self) -> str:
        """Key of the class in `CLIPPINGS`."""
        ...

    def find_limit(self, rows: Tensor, fake_quantize: FakeQuantize, *, magnitudes: int) -> Tensor:
        """Limit ``[C]`` of ``rows [C, M]``; `magnitudes` counts the levels of one sign, 0 included."""
        ...


@final
@dataclass(frozen=True)
class MaxClipping:
    """``c = max |x|``: nothing is clipped.

    >>> MaxClipping().find_limit(torch.tensor([[1.0, -3.0]]), lambda x, c: x, magnitudes=8).tolist()
    [3.0]
    """

    name: ClassVar[str] = "max"

    def find_limit(self, rows: Tensor, fake_quantize: FakeQuantize, *, magnitudes: int) -> Tensor:
        """Largest magnitude of each row."""
        return largest(rows)


@final
@dataclass(frozen=True)
class PercentileClipping:
    """``c`` = percentile of ``|x|``, interpolated linearly between the two nearest values (as numpy does).

    >>> PercentileClipping(50).find_limit(torch.tensor([[1.0, -3.0, 9.0]]), lambda x, c: x, magnitudes=8).tolist()
    [3.0]
    """

    percent: float = 99.9
    name: ClassVar[str] = "percentile"

    def __post_init__(self) -> None:
        if not _is_number(self.percent) or not 0 < self.percent <= 100:
            raise PlanError(f"percentile clipping: percent is {self.percent!r}; expected a number above 0, up to 100")

    def find_limit(self, rows: Tensor, fake_quantize: FakeQuantize, *, magnitudes: int) -> Tensor:
        """Percentile of each row's magnitudes (order statistics: no limit on the row's length)."""
        values = rows.abs()
        position = self.percent / 100 * (values.shape[1] - 1)
        below = int(position)
        lower = values.kthvalue(below + 1, dim=1).values
        upper = values.kthvalue(min(below + 2, values.shape[1]), dim=1).values
        return torch.lerp(lower, upper, position - below)


@final
@dataclass(frozen=True)
class MSEClipping:
    """``c`` of ``i/grid * max |x|``, ``i = 1 .. grid``, with the least squared error; a tie takes the larger.

    One pass per candidate over as many rows as stay in a processor's cache.  What lies outside
    of a grid costs at least its distance from the outermost levels, more with every smaller
    limit; where that alone is no less than the least error of each row, the search is over.
    """

    grid: int = 100
    name: ClassVar[str] = "mse"

    def __post_init__(self) -> None:
        if not _is_whole(self.grid) or self.grid < 1:
            raise PlanError(f"mse clipping: grid is {self.grid!r}; expected an integer of at least 1")

    def find_limit(self, rows: Tensor, fake_quantize: FakeQuantize, *, magnitudes: int) -> Tensor:
        """Limit of each row with the least squared error."""
        height = max(1, BLOCK // max(1, rows.shape[1]))
        return torch.cat([self._block_limit(block, fake_quantize) for block in torch.split(rows, height)])

    def _block_limit(self, rows: Tensor, fake_quantize: FakeQuantize) -> Tensor:
        widest = rows.abs().amax(dim=1, keepdim=True)
        best = widest
        best_error = torch.full_like(widest, torch.inf)
        for step in range(self.grid, 0, -1):
            limit = widest * (step / self.grid)
            error = (fake_quantize(rows, limit) - rows).square_().sum(dim=1, keepdim=True)
            better = error < best_error
            best, best_error = torch.where(better, limit, best), torch.where(better, error, best_error)
            if step % PATIENCE == 0 and bool((_outside(rows, limit, fake_quantize) >= best_error).all()):
                break
        return best[:, 0]


def _outside(rows: Tensor, limit: Tensor, fake_quantize: FakeQuantize) -> Tensor:
    """A lower bound ``[C, 1]`` of the error at `limit` and below: that of the values outside of the grid."""
    ends = fake_quantize(torch.cat([rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)], dim=1), limit)
    inside = torch.minimum(torch.maximum(rows, ends[:, :1]), ends[:, 1:])
    return (1 - FLOAT_SUM) * inside.sub_(rows).square_().sum(dim=1, keepdim=True)


@final
@dataclass(frozen=True)
class KLClipping:
    """``c`` whose clipped histogram loses least information on the grid (`kl.py` has the equation)."""

    bins: int = 2048
    name: ClassVar[str] = "kl"

    def __post_init__(self) -> None:
        if not _is_whole(self.bins) or self.bins < 16:
            raise PlanError(f"kl clipping: bins is {self.bins!r}; expected an integer of at least 16")

    def find_limit(self, rows: Tensor, fake_quantize: FakeQuantize, *, magnitudes: int) -> Tensor:
        """Limit of each row with the least divergence."""
        return least_divergence_limit(rows.abs(), bins=self.bins, magnitudes=magnitudes)


@final
@dataclass(frozen=True)
class FixedClipping:
    """``c = limit``, whatever the data.

    >>> FixedClipping(10.0).find_limit(torch.tensor([[1.0], [2.0]]), lambda x, c: x, magnitudes=8).tolist()
    [10.0, 10.0]
    """

    limit: float
    name: ClassVar[str] = "fixed"

    def __post_init__(self) -> None:
        if not _is_number(self.limit) or not 0 < self.limit < float("inf"):
            raise PlanError(f"fixed clipping: limit is {self.limit!r}; expected a finite number above 0")

    def find_limit(self, rows: Tensor, fake_quantize: FakeQuantize, *, magnitudes: int) -> Tensor:
        """The same limit for each row."""
        return rows.new_full(rows.shape[:1], self.limit)


CLIPPINGS: dict[str, type[MaxClipping | PercentileClipping | MSEClipping | KLClipping | FixedClipping]] = {
    "max": MaxClipping,
    "percentile": PercentileClipping,
    "mse": MSEClipping,
    "kl": KLClipping,
    "fixed": FixedClipping,
}


def check_clipping(owner: str, clipping: object) -> None:
    """Raise unless `clipping` is an instance of a class in `CLIPPINGS`.

    Raises:
        PlanError: it is not.
    """
    if not isinstance(clipping, tuple(CLIPPINGS.values())):
        known = ", ".join(f"{cls.__name__}" for cls in CLIPPINGS.values())
        raise PlanError(f"{owner}: clipping is {clipping!r}; expected an instance of {known}")


def default_scale_mode(clipping: Clipping) -> ScaleMode:
    """``dynamic`` for the maximum, which is cheap to refit at every step; ``fixed`` for all others."""
    return "dynamic" if isinstance(clipping, MaxClipping) else "fixed"


def fit_scale(
    x: Tensor,
    channel_axis: int | None,
    clipping: Clipping,
    *,
    steps: float,
    magnitudes: int,
    signed: bool,
    codes: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Scale ``limit / steps`` of each channel, in the shape that broadcasts against `x`.

    `codes` are the codes of ``(rows, scale [C, 1])``.  An all-zero channel gets scale 1; a limit of 0 on a channel
    that is not all zero (a percentile of a sparse one) falls back to its maximum.

    Raises:
        DataError: `x` is empty or not finite, or has no such axis.
    """
    rows = channel_rows(finite(x), channel_axis)
    if not signed:
        rows = rows.clamp(min=0)

    def fake_quantize(values: Tensor, limit: Tensor) -> Tensor:
        scale = scale_of_limit(limit, steps)
        return codes(values, scale) * scale

    limit = clipping.find_limit(rows, fake_quantize, magnitudes=magnitudes)
    if not bool((limit > 0).all()):
        limit = torch.where(limit > 0, limit, largest(rows))
    return scale_of_limit(limit, steps).reshape(scale_shape(x, channel_axis))


def scale_of_limit(limit: Tensor, steps: float) -> Tensor:
    """``limit / steps``, rounded so that ``limit / scale <= steps``: the largest value is not clipped by an ulp."""
    scale = usable_scale(limit / steps)
    up = torch.nextafter(scale, torch.full_like(scale, torch.inf))
    return torch.where(limit / scale > steps, up, scale)


def check_equal_steps(owner: str, clipping: Clipping) -> None:
    """Raise for a clipping rule that assumes equally spaced levels.

    Raises:
        PlanError: `clipping` is the KL rule.
    """
    rules = [name for name in CLIPPINGS if name != "kl"]
    if clipping.name == "kl":
        check_choice(owner, "clipping (kl assumes equally spaced levels)", "kl", rules)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

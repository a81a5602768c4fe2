"""LQ-Net: levels that are the signed sums of a learned basis, one basis per output channel.

    w  ~  sum_j v_j q_j,   q_j in {-1, +1}      2^n levels, symmetric about 0, not equally spaced
    v  <-  0.9 v + 0.1 (B^T B + ridge I)^-1 (B^T w + ridge v)      one pass per training step

After training the basis is found by alternating least squares until it stands still.  The levels are integers:
``k_j = round(v_j / s)`` in a common LSB ``s = sum v / (top - n/2)`` per channel, so that a layer still sums integers
and nothing about the neuron changes.  A code is stored in ``n`` bits; the ``n`` integers ``k_j`` of each channel are
its code book.  The gradient is straight-through everywhere: LQ-Net does not clip weights.

Source: Zhang, Yang, Ye, Hua, *LQ-Nets: learned quantization for highly accurate and compact deep neural networks*,
ECCV 2018, with the ridge, the moving average and the unclipped gradient of the authors' program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import channel_rows, finite, scale_shape, usable_scale, widened
from spikequant.quantizers.interface import ScaleMode, check_bits
from spikequant.quantizers.qem import Rows, converged_basis, middles, one_pass, ordered, signs
from spikequant.quantizers.stateful import State
from spikequant.quantizers.straight_through import round_ste, straight_through

SPARE_BITS = 4
"""Bits of a level beyond those of its code: the basis is rounded to about a sixteenth of a step."""
NARROWEST_LEVEL = 8


@final
@dataclass(frozen=True)
class LQNet:
    """Codes of 1 to 8 bits that pick a signed sum of `bits` learned integers.

    Attributes:
        level_bits: width of the integer levels, at most 16; 0: ``max(8, bits + 4)``.
        momentum: share of the old basis that a training step keeps.
        ridge: pull toward the old basis in the least squares.
        passes: most alternations when the basis is fitted anew.

    >>> q = LQNet(2)
    >>> x = torch.tensor([-4.0, -1.0, 1.0, 4.0])
    >>> scale = q.fit(x)
    >>> [round(v, 2) for v in (q.codes(x, scale) * scale).tolist()], q.code_format.bits
    ([-4.0, -1.02, 1.02, 4.0], 8)

    Raises:
        PlanError: a number out of range.
    """

    bits: int
    _: KW_ONLY
    level_bits: int = 0
    momentum: float = 0.9
    ridge: float = 1e-4
    passes: int = 50
    name: ClassVar[str] = "lqnet"
    scale_mode: ClassVar[ScaleMode] = "fixed"
    rounding: ClassVar[Rounding] = "half_up"
    learned: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_bits("lqnet", self.bits, 1, 8)
        if self.level_bits == 0:
            object.__setattr__(self, "level_bits", max(NARROWEST_LEVEL, self.bits + SPARE_BITS))
        if not _whole(self.level_bits, self.bits + 2, 16):
            raise PlanError(
                f"lqnet: level_bits is {self.level_bits!r};"
                f" expected 0 (chosen) or an integer from {self.bits + 2} to 16"
            )
        if not _number(self.momentum) or not 0 <= self.momentum < 1:
            raise PlanError(f"lqnet: momentum is {self.momentum!r}; expected a number from 0, below 1")
        if not _number(self.ridge) or not 0 < self.ridge <= 1e6:
            raise PlanError(f"lqnet: ridge is {self.ridge!r}; expected a number above 0, up to 1e6")
        if not _whole(self.passes, 1, 1000):
            raise PlanError(f"lqnet: passes is {self.passes!r}; expected an integer from 1 to 1000")

    @property
    def code_format(self) -> IntFormat:
        """Integers of the levels, in the common LSB of a channel."""
        return IntFormat(bits=self.level_bits, narrow=True)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer that a level can be; a channel uses at most ``2^bits`` of them."""
        return range(self.code_format.min, self.code_format.max + 1)

    def start(self, x: Tensor, *, channel_axis: int | None = None) -> State:
        """``basis [C, n]`` of least squared error, in the units of `x`.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        rows = channel_rows(finite(x), channel_axis)
        return {"basis": converged_basis(rows, self.bits, ridge=self.ridge, passes=self.passes).to(rows.dtype)}

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """The LSB in which the outermost level nearly fills `code_format`.

        For a channel of zeros, which has no use for one, as if that level were 1: an LSB of 1 beside fine ones would
        cost every register of the layer fraction bits.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        return self._lsb(self.start(x, channel_axis=channel_axis)["basis"]).reshape(scale_shape(x, channel_axis))

    def _lsb(self, basis: Tensor) -> Tensor:
        outermost = usable_scale(basis.sum(1))
        return usable_scale(outermost / (self.code_format.max - self.bits // 2))  # n roundings may add n / 2

    def learn_(self, x: Tensor, scale: Tensor, state: State) -> None:
        """One pass over `x` enters the moving average of the basis; the LSB follows it.

        A channel that was all 0 when its basis was fitted has none to average with: it gets one of its own as soon as
        it has weights.
        """
        values, basis = channel_rows(finite(x), _axis(scale)), state["basis"].to(torch.float64)
        found, _ = one_pass(Rows.of(values), basis, ridge=self.ridge)
        mixed = ordered(self.momentum * basis + (1 - self.momentum) * found)
        empty = basis.sum(1) == 0
        if bool(empty.any()):
            mixed[empty] = converged_basis(values[empty], self.bits, ridge=self.ridge, passes=self.passes)
        state["basis"].copy_(mixed)
        scale.copy_(self._lsb(state["basis"]).reshape(scale.shape))

    def progress_(self, state: State, done: float, epochs: int) -> None:
        """Nothing: there is no schedule."""

    def codebook(self, scale: Tensor, state: State) -> Tensor:
        """The integers ``k [C, n]`` of the basis in LSBs."""
        units = state["basis"].detach() / scale.detach().reshape(-1, 1).to(state["basis"].dtype)
        return round_ste(units, "half_even").clamp(max=self.code_format.max)

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Levels of `x` under the basis that is fitted to `x` itself; `state_codes` takes one that is kept."""
        return self.state_codes(x, scale, self.start(x, channel_axis=_axis(scale)), soft=False)

    def state_codes(self, x: Tensor, scale: Tensor, state: State, *, soft: bool, noise: Tensor | None = None) -> Tensor:
        """The nearest level of every value, an integer in LSBs (also where `soft`); halfway the upper one."""
        axis, x = _axis(scale), widened(x)
        basis = self.codebook(scale, state).to(x.dtype)
        levels = (basis @ signs(self.bits, basis).T).sort(dim=1).values
        levels = levels.clamp(self.code_format.min, self.code_format.max)
        units = x / scale
        rows = channel_rows(units.detach(), axis).contiguous()
        index = torch.searchsorted(middles(levels), rows, right=True)
        value = torch.where(rows.isnan(), torch.nan, levels.gather(1, index))
        if axis is None:
            return straight_through(value.reshape(x.shape), units)
        shape = (x.shape[axis], *(n for i, n in enumerate(x.shape) if i != axis))
        return straight_through(value.reshape(shape).movedim(0, axis), units)

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`."""
        return scale


def _axis(scale: Tensor) -> int | None:
    """The channel axis that a scale of `fit` tells; 0 where it has one value and axes (a single channel)."""
    if scale.dim() == 0:
        return None
    return next((i for i, n in enumerate(scale.shape) if n > 1), 0)


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

"""A sum of sigmoids: soft steps while training, hard steps at inference.

    training    Q(x) = alpha ( sum_i s_i sigmoid(T (beta x - b_i)) - o )
    inference   Q(x) = alpha ( sum_i s_i 1[beta x >= b_i] - o )

``n + 1`` integer levels ``l_0 < ... < l_n`` need ``n`` sigmoids of heights ``s_i = l_i - l_(i-1)``; ``o = -l_0``, which
for levels symmetric about 0 is half the sum of the heights.  ``alpha`` is the scale, ``beta`` a slope, both trained;
the boundaries ``b_i`` come from k-means and stay; the temperature ``T`` rises with the epochs.  Gradients, with
``g_i = sigmoid(T (beta x - b_i))``:

    dQ/dx = alpha beta T sum_i s_i g_i (1 - g_i),  dQ/dbeta = alpha T x sum_i s_i g_i (1 - g_i),  dQ/dalpha = Q / alpha

The argument of the sigmoid is cut to ``[-argument_limit, argument_limit]`` in the value and in ``g_i`` of the
gradients, which are therefore nowhere exactly 0.

Sources: Shymyrbay, Fouda, Eltawil, *Low precision quantization-aware training in spiking neural networks with
differentiable quantization function*, IJCNN 2023, with the function of Yang et al., *Quantization networks*, CVPR
2019, equations 5 to 8; temperature step, cap, cut and the wide gradient of binary weights as in that paper's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import Rounding
from spikequant.quantizers.channels import channel_rows, finite, mean_like, scale_shape, usable_scale, widened
from spikequant.quantizers.clipping import MSEClipping, fit_scale
from spikequant.quantizers.interface import ScaleMode, check_bits, check_choice
from spikequant.quantizers.learned import positive_scale
from spikequant.quantizers.one_dimension import boundaries_of_clusters
from spikequant.quantizers.stateful import State
from spikequant.quantizers.straight_through import straight_through

Start = Literal["auto", "k_means", "inverse_beta", "midpoints"]
Schedule = Literal["linear", "to_cap"]
Gradient = Literal["auto", "steep", "wide"]
LEVEL_SETS = {1: (-1, 1), 2: (-1, 0, 1), 3: (-4, -2, -1, 0, 1, 2, 4)}
"""Levels by bits, as in the papers; above 3 bits every integer of a narrow range."""
MOST_LEVEL = 2**15 - 1
SCALE_RANGE = 1024.0
"""How far the outermost level may be from the mean magnitude of the weights, as a factor."""
REACH = 1.25
"""The largest weight lies at this many times the outermost level (``5p/4`` of the code of Yang et al.)."""


@final
@dataclass(frozen=True)
class SigmoidSum:
    """Levels by bits (1: binary, 2: ternary, 3: {-4, -2, -1, 0, 1, 2, 4}) or any `level_set` of integers.

    Args:
        bits: 1 to 8; with a `level_set` the bits that its levels need.
        level_set: ascending integers; empty: those of `bits`.
        start_from: ``k_means``: boundaries in the middle between clusters, alpha by least squares; ``inverse_beta``:
            the same with ``alpha = 1 / beta``, as published; ``midpoints``: the nearest level at the alpha of least
            squared error; ``auto``: ``k_means`` up to 3 bits, ``midpoints`` above, where equally spaced levels and
            clusters that crowd around 0 do not belong together, and for levels that are not symmetric.
        schedule: ``linear``: T = step (epoch + 1); ``to_cap``: geometrically from the step to the cap, which short
            trainings need in order to end at hard steps.
        temperature_step, temperature_cap: of the schedule (20 and 2000 in the code of Yang et al.).
        argument_limit: where the argument of a sigmoid is cut.
        gradient: ``steep``: that of the equations; ``wide``: its ``g (1 - g)`` taken at T = 1; ``auto``: wide for two
            levels, whose slope would die at a high T.

    >>> q, x = SigmoidSum(2), torch.tensor([-0.9, -0.5, 0.1, 0.7])
    >>> state = q.start(x)
    >>> [round(float(v), 2) for v in (state["beta"], *state["bounds"], q.fit(x))]
    [1.39, -0.42, 0.42, 0.7]
    >>> q.state_codes(x, q.fit(x), state, soft=False).tolist()
    [-1.0, -1.0, 0.0, 1.0]

    Raises:
        PlanError: bits and levels that do not belong together, or an option out of range.
    """

    bits: int
    _: KW_ONLY
    level_set: tuple[int, ...] = ()
    start_from: Start = "auto"
    schedule: Schedule = "linear"
    temperature_step: float = 20.0
    temperature_cap: float = 2000.0
    argument_limit: float = 10.0
    gradient: Gradient = "auto"
    name: ClassVar[str] = "sigmoid_sum"
    scale_mode: ClassVar[ScaleMode] = "learned"
    rounding: ClassVar[Rounding] = "half_up"
    learned: ClassVar[tuple[str, ...]] = ("beta",)

    def __post_init__(self) -> None:
        check_bits(self.name, self.bits, 1, 8)
        check_choice(self.name, "start_from", self.start_from, get_args(Start))
        check_choice(self.name, "schedule", self.schedule, get_args(Schedule))
        check_choice(self.name, "gradient", self.gradient, get_args(Gradient))
        object.__setattr__(self, "level_set", _level_set(self.bits, self.level_set))
        for field in ("temperature_step", "temperature_cap", "argument_limit"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise PlanError(f"sigmoid_sum: {field} is {value!r}; expected a finite number above 0")
        if self.temperature_cap < self.temperature_step:
            raise PlanError(
                f"sigmoid_sum: the cap {self.temperature_cap} is below the temperature step {self.temperature_step}"
            )
        if self.start_from in ("k_means", "inverse_beta") and not self._is_symmetric:
            raise PlanError(
                f"sigmoid_sum: {self.start_from} needs levels symmetric about 0; use start_from='midpoints'"
            )

    @property
    def code_format(self) -> IntFormat:
        """Integers of the codes."""
        low, high = self.level_set[0], self.level_set[-1]
        if low >= 0:
            return IntFormat(bits=high.bit_length(), signed=False)
        return IntFormat(bits=max(-low, high).bit_length() + 1, narrow=True)

    @property
    def levels(self) -> Sequence[int]:
        """Every integer level, ascending."""
        return self.level_set

    @property
    def _is_symmetric(self) -> bool:
        return all(low == -high for low, high in zip(self.level_set, reversed(self.level_set), strict=True))

    @property
    def _start(self) -> Start:
        if self.start_from != "auto":
            return self.start_from
        return "k_means" if self.bits <= 3 and self._is_symmetric else "midpoints"

    def fit(self, x: Tensor, *, channel_axis: int | None = None) -> Tensor:
        """The alpha that training starts from; 1 for an all-zero channel.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        if self._start == "midpoints":
            return fit_scale(
                x, channel_axis, MSEClipping(), steps=max(abs(self.level_set[0]), abs(self.level_set[-1])),
                magnitudes=len(self.level_set), signed=self.level_set[0] < 0, codes=self.codes,
            )  # fmt: skip
        rows = channel_rows(finite(x), channel_axis)
        beta, bounds = self._clusters(rows)
        if self._start == "inverse_beta":
            return usable_scale(1 / beta).reshape(scale_shape(x, channel_axis))
        codes = self._steps(beta * rows, bounds)
        alpha = (rows * codes).sum(1, keepdim=True) / codes.square().sum(1, keepdim=True).clamp(min=1)
        return usable_scale(alpha).reshape(scale_shape(x, channel_axis))

    def start(self, x: Tensor, *, channel_axis: int | None = None) -> State:
        """``beta`` in the shape of the scale, ``bounds`` with an axis of their own in front, ``temperature``."""
        shape, rows = scale_shape(x, channel_axis), channel_rows(finite(x), channel_axis)
        if self._start == "midpoints":
            beta = 1 / self.fit(x, channel_axis=channel_axis)
            bounds = self._midpoints(rows).reshape(-1, 1, 1).repeat(1, len(rows), 1)
        else:
            beta, bounds = self._clusters(rows)
        temperature = torch.tensor(float(self.temperature_step), dtype=rows.dtype)
        bounds = bounds.reshape(len(bounds), *shape)
        return {"beta": beta.reshape(shape), "bounds": bounds, "temperature": temperature}

    def codes(self, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
        """Nearest level of ``x / scale``, a tie upwards, with straight-through gradients: the rule without a state."""
        units = (widened(x) / scale).clamp(self.level_set[0], self.level_set[-1])
        index = torch.bucketize(units.detach().contiguous(), self._midpoints(units), right=True)
        return straight_through(units.new_tensor(self.level_set)[index], units)

    def state_codes(self, x: Tensor, scale: Tensor, state: State, *, soft: bool, noise: Tensor | None = None) -> Tensor:
        """The sum of sigmoids at the temperature of the state, or of steps, ``Q / alpha`` in the shape of `x`."""
        units, bounds = positive_scale(state["beta"]) * widened(x), state["bounds"]
        if not soft:
            return self._steps(units.detach(), bounds)
        temperature = state["temperature"]
        value = self._sigmoids(units, bounds, temperature)
        if self.gradient == "wide" or (self.gradient == "auto" and len(self.level_set) == 2):
            value = straight_through(value, temperature * self._sigmoids(units, bounds, torch.ones_like(temperature)))
        return value

    def learn_(self, x: Tensor, scale: Tensor, state: State) -> None:
        """A scale that an optimizer's step took out of its bounds is put back to them, so that it can go on from there.

        Left outside, it would collapse: thresholds grow with ``1 / alpha``, their gradient with ``1 / alpha^2``.
        """
        low, high = self._scale_bounds(x, scale)
        if bool(((scale < low) | (scale > high)).any()):
            scale.copy_(scale.maximum(low).minimum(high))

    def progress_(self, state: State, done: float, epochs: int) -> None:
        """The temperature of an epoch, or of a moment of it."""
        if self.schedule == "linear":
            temperature = self.temperature_step * (int(done) + 1)
        else:
            temperature = self.temperature_step * (self.temperature_cap / self.temperature_step) ** (done / epochs)
        state["temperature"].fill_(min(temperature, self.temperature_cap))

    def graph_scale(self, scale: Tensor, x: Tensor) -> Tensor:
        """`scale`, kept positive and within a factor of 1024 of the weights; gradient 1."""
        low, high = self._scale_bounds(x, scale)
        return straight_through(scale.detach().maximum(low).minimum(high), scale)

    def _scale_bounds(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest alpha: its outermost level stays between the mean weight / 1024 and 1024 times the mean.

        It may always reach the largest weight, which lies beyond that in a channel of few weights that are not 0.  For
        a channel of zeros the mean counts as 1.
        """
        outer, size = max(abs(self.level_set[0]), abs(self.level_set[-1])), x.detach().abs()
        unit = usable_scale(mean_like(size, scale)).to(scale) / outer
        shared = [i for i in range(x.dim()) if scale.dim() == 0 or scale.shape[i] == 1]
        most = (size.amax(shared, keepdim=scale.dim() > 0) if shared else size).to(scale) / outer
        return unit / SCALE_RANGE, torch.maximum(unit * SCALE_RANGE, most)

    def _clusters(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """``beta [C, 1]`` and bounds ``[n, C, 1]`` in its units; an all-zero channel gets the midpoints."""
        largest = rows.abs().amax(dim=1, keepdim=True)
        beta = usable_scale(REACH * self.level_set[-1] / usable_scale(largest))
        found = (boundaries_of_clusters(rows, len(self.level_set)) * beta).to(rows.dtype)
        found = torch.where(largest > 0, found, self._midpoints(rows))
        return beta, found.movedim(1, 0).unsqueeze(-1)

    def _midpoints(self, like: Tensor) -> Tensor:
        return like.new_tensor([(low + high) / 2 for low, high in pairwise(self.level_set)])

    def _heights(self) -> list[int]:
        return [high - low for low, high in pairwise(self.level_set)]

    def _steps(self, units: Tensor, bounds: Tensor) -> Tensor:
        total = torch.full_like(units, self.level_set[0])
        for height, bound in zip(self._heights(), bounds, strict=True):
            total += height * (units >= bound)
        return torch.where(units.isnan(), torch.nan, total)

    def _sigmoids(self, units: Tensor, bounds: Tensor, temperature: Tensor) -> Tensor:
        total = torch.full_like(units, self.level_set[0])
        for height, bound in zip(self._heights(), bounds, strict=True):
            argument = temperature * (units - bound)
            cut = argument.detach().clamp(-self.argument_limit, self.argument_limit)
            total = total + height * torch.sigmoid(straight_through(cut, argument))
        return total


def _level_set(bits: int, given: object) -> tuple[int, ...]:
    """The levels, checked against the bits."""
    if not isinstance(given, (tuple, list)):
        raise PlanError(f"sigmoid_sum: level_set is {given!r}; expected a list of integers")
    if not given:
        top = 2 ** (bits - 1) - 1
        return LEVEL_SETS.get(bits, tuple(range(-top, top + 1)))
    whole = all(isinstance(level, int) and not isinstance(level, bool) for level in given)
    if not whole or len(given) < 2 or any(low >= high for low, high in pairwise(given)):
        raise PlanError(f"sigmoid_sum: level_set is {list(given)}; expected at least two integers in ascending order")
    if max(abs(given[0]), abs(given[-1])) > MOST_LEVEL:
        raise PlanError(f"sigmoid_sum: level_set reaches {given[0]} to {given[-1]}; expected at most {MOST_LEVEL}")
    needed = (len(given) - 1).bit_length()
    if needed != bits:
        raise PlanError(f"sigmoid_sum: {len(given)} levels need {needed} bits, {bits} were given; write bits={needed}")
    return tuple(given)

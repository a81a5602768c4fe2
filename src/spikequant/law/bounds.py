"""Proven widths: the law read over intervals.

`RangeOps` carries ``[low, high]`` through a step in exact Python integers.  At
``where(ge(v, theta), a, b)`` it re-evaluates ``a`` knowing ``v >= theta`` and ``b``
knowing ``v <= theta - 1``; without that a soft reset looks as if it could diverge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spikequant.law.errors import WidthError
from spikequant.law.formats import signed_bits_for
from spikequant.law.neurons import prepare, step
from spikequant.law.noise import NOISE_ROLES
from spikequant.law.products import Product
from spikequant.law.rounding import MOST_SHIFT, NOISE_BITS, Rounding
from spikequant.law.spec import NeuronSpec


def exact(value: Any) -> Any:
    """`value` as an object array of Python integers, which cannot overflow."""
    return np.asarray(value).astype(object)


@dataclass(eq=False)
class Interval:
    """All integers of ``[low, high]``, elementwise; remembers how it was computed."""

    low: Any
    high: Any
    again: Callable[..., tuple[Any, Any]] | None = field(default=None, repr=False)
    arguments: tuple[Interval, ...] = ()
    compared: tuple[Interval, Interval] | None = None

    def __post_init__(self) -> None:
        self.low, self.high = exact(self.low), exact(self.high)  # operations on 0-d object arrays give bare integers


class RangeOps:
    """Intervals.  ``lowest`` and ``highest`` are the extremes of every value it computed."""

    def __init__(self) -> None:
        self.lowest, self.highest = 0, 0

    def interval(self, low: Any, high: Any) -> Interval:
        """The interval of all integers between two arrays."""
        return self._seen(Interval(exact(low), exact(high)))

    def _seen(self, value: Interval) -> Interval:
        self.lowest = min(self.lowest, int(np.min(value.low)))
        self.highest = max(self.highest, int(np.max(value.high)))
        return value

    def _make(self, rule: Callable[..., tuple[Any, Any]], *arguments: Interval) -> Interval:
        low, high = rule(*((a.low, a.high) for a in arguments))
        return self._seen(Interval(low, high, rule, arguments))

    def const(self, value: Any) -> Interval:
        """A known integer, or an interval that is passed on."""
        if isinstance(value, Interval):
            return value
        return Interval(exact(value), exact(value))

    def add(self, a: Interval, b: Interval) -> Interval:
        """``a + b``."""
        return self._make(lambda a, b: (a[0] + b[0], a[1] + b[1]), a, b)

    def sub(self, a: Interval, b: Interval) -> Interval:
        """``a - b``."""
        return self._make(lambda a, b: (a[0] - b[1], a[1] - b[0]), a, b)

    def mul(self, a: Interval, b: Interval) -> Interval:
        """``a * b``."""
        return self._make(_product_range, a, b)

    def shr(self, a: Interval, n: Interval, rounding: Rounding, noise: Interval | None = None) -> Interval:
        """``a / 2^n``: the floor of the low end, the floor or the ceiling of the high end."""

        def rule(a: Any, n: Any) -> tuple[Any, Any]:
            shift = n[0]
            if int(np.max(shift)) > MOST_SHIFT or int(np.min(shift)) < 0:
                raise WidthError(
                    f"a right shift takes 0 to {MOST_SHIFT} bits, got {int(np.max(shift))}; use fewer fraction bits"
                )
            if rounding == "stochastic" and int(np.max(shift)) > NOISE_BITS:
                raise WidthError(
                    f"stochastic rounding cuts at most {NOISE_BITS} bits, got {int(np.max(shift))}; use another one"
                )
            if rounding == "floor":
                return a[0] >> shift, a[1] >> shift
            return a[0] >> shift, -((-a[1]) >> shift)

        return self._make(rule, a, n)

    def clip(self, a: Interval, low: int, high: int) -> Interval:
        """`a` inside ``[low, high]``."""

        def rule(a: Any) -> tuple[Any, Any]:
            return _clamp(a[0], low, high), _clamp(a[1], low, high)

        return self._make(rule, a)

    def ge(self, a: Interval, b: Interval) -> Interval:
        """[0, 1], narrower where the answer is known; remembers what was compared."""
        low = exact(np.asarray(a.low >= b.high).astype(np.int64))  # two scalars give a Python bool
        high = exact(np.asarray(a.high >= b.low).astype(np.int64))
        return Interval(low, high, lambda a, b: (low, high), (a, b), compared=(a, b))

    def where(self, condition: Interval, a: Interval, b: Interval) -> Interval:
        """The union of both branches, each re-evaluated under what its condition says."""
        when_true = self._refined(a, condition, holds=True)
        when_false = self._refined(b, condition, holds=False)

        def rule(c: Any, a: Any, b: Any) -> tuple[Any, Any]:
            can, must = c[1] != 0, c[0] != 0
            low = np.where(must, a[0], np.where(can, np.minimum(a[0], b[0]), b[0]))
            high = np.where(must, a[1], np.where(can, np.maximum(a[1], b[1]), b[1]))
            return low, high

        return self._make(rule, condition, when_true, when_false)

    def _refined(self, value: Interval, condition: Interval, *, holds: bool) -> Interval:
        if condition.compared is None:
            return value
        left, right = condition.compared
        if holds:
            low, high = np.maximum(left.low, np.minimum(right.low, left.high)), left.high
        else:
            low, high = left.low, np.minimum(left.high, np.maximum(right.high - 1, left.low))
        known = {id(left): Interval(low, high)}
        return _evaluated(value, known)

    def max(self, a: Interval, b: Interval) -> Interval:
        """The larger of two."""
        return self._make(lambda a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1])), a, b)

    def dot(self, x: Interval, product: Product) -> Interval:
        """The L1 bound: positive codes see the highest input, negative ones the lowest."""
        low, high = int(np.min(x.low)), int(np.max(x.high))
        if np.any(np.asarray(product.pad_code)):
            low, high = min(low, int(np.min(product.pad_code))), max(high, int(np.max(product.pad_code)))
        elif product.kind == "conv" and any(product.padding):
            low, high = min(low, 0), max(high, 0)
        positive, negative = (exact(part) for part in product.positive_negative())
        shape = (-1, *([1] * (product.codes.ndim - 2))) if product.kind == "conv" else (-1,)
        bottom, top = positive * low + negative * high, positive * high + negative * low
        return self.interval(bottom.reshape(shape), top.reshape(shape))


def _product_range(a: Any, b: Any) -> tuple[Any, Any]:
    corners = [exact(x * y) for x in a for y in b]  # beyond 64 bits numpy takes no bare integers
    low = high = corners[0]
    for corner in corners[1:]:
        low, high = np.minimum(low, corner), np.maximum(high, corner)
    return low, high


def _clamp(a: Any, low: int, high: int) -> Any:
    return np.minimum(np.maximum(a, low), high)


def _evaluated(value: Interval, known: dict[int, Interval]) -> Interval:
    """`value` computed again with some of its ancestors known more narrowly."""
    if id(value) in known:
        return known[id(value)]
    result = value
    if value.again is not None:
        arguments = tuple(_evaluated(a, known) for a in value.arguments)
        if any(new is not old for new, old in zip(arguments, value.arguments, strict=True)):
            low, high = value.again(*((a.low, a.high) for a in arguments))
            result = Interval(low, high)
    known[id(value)] = result
    return result


@dataclass(frozen=True)
class StepBounds:
    """What one step can reach: register widths in bits, the output's range, dead neurons."""

    accumulator_bits: int
    output_low: int
    output_high: int
    unreachable: tuple[int, ...]
    """Flat indices (within the broadcast shape of the parameters) that can never fire."""


def prove_step(
    spec: NeuronSpec, params: Mapping[str, Any], low: Any, high: Any, *, where: str = "", check_reach: bool = True
) -> StepBounds:
    """Prove one step from every state that the registers can hold and every input in ``[low, high]``.

    `check_reach` also looks for neurons whose threshold no input can reach.

    Raises:
        WidthError: an intermediate needs more than 63 bits.
    """
    ops = RangeOps()
    _, output = _one_step(ops, spec, params, full_state(spec), ops.interval(low, high))
    bits = signed_bits_for(ops.lowest, ops.highest)
    if bits > 63:
        raise WidthError(
            f"{where or 'a neuron'}: an intermediate needs {bits} bits, the golden model carries 63; "
            "use fewer fraction bits, fewer leak bits or narrower weights"
        )
    dead = _unreachable(spec, params, low, high) if check_reach else ()
    return StepBounds(bits, int(np.min(output.low)), int(np.max(output.high)), dead)


def full_state(spec: NeuronSpec) -> dict[str, Interval]:
    """Everything that the registers of a spec can hold."""
    state = {}
    for name, fmt in spec.state_formats().items():
        if fmt is None:
            raise WidthError(f"state {name} has no integer format; prove a spec after its widths are chosen")
        high = spec.refractory if name == "r" else spec.spikes_max if name == "s" else fmt.max
        state[name] = Interval(exact(fmt.min), exact(high))
    return state


def _one_step(
    ops: RangeOps, spec: NeuronSpec, params: Mapping[str, Any], state: dict[str, Interval], x: Interval
) -> tuple[dict[str, Interval], Interval]:
    known = {name: ops.const(value) for name, value in params.items()}
    noise = {name: Interval(exact(0), exact(2**32 - 1)) for name in NOISE_ROLES}
    tick = Interval(exact(0), exact(1))
    return step(ops, spec, prepare(ops, spec, known), state, x, noise=noise.__getitem__, tick=tick)


def _unreachable(
    spec: NeuronSpec, params: Mapping[str, Any], low: Any, high: Any, steps: int = 4096
) -> tuple[int, ...]:
    """Neurons that no input can make fire, by iterating the step from rest to a fixed point."""
    if spec.output != "spike":
        return ()
    ops = RangeOps()
    state = {name: Interval(exact(0), exact(0)) for name in spec.state_formats()}
    x = ops.interval(low, high)
    fires: Any = np.asarray(False)
    for _ in range(steps):
        new, output = _one_step(ops, spec, params, state, x)
        fires = fires | (output.high > 0)
        if np.all(fires):
            return ()
        joined = {
            k: Interval(np.minimum(new[k].low, state[k].low), np.maximum(new[k].high, state[k].high)) for k in state
        }
        if all(_same(joined[k], state[k]) for k in state):
            return tuple(int(i) for i in np.flatnonzero(~np.asarray(fires, dtype=bool)))
        state = joined
    return ()


def _same(a: Interval, b: Interval) -> bool:
    low, high = np.broadcast_arrays(a.low, b.low), np.broadcast_arrays(a.high, b.high)
    return bool(np.all(low[0] == low[1]) and np.all(high[0] == high[1]))

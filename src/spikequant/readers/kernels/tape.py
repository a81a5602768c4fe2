"""The law's step recorded with parameters that stay arguments: one text serves every training step of a layer.

`EmitOps` (`readers/emit.py`) folds what the parameters fix, because an exported network is fixed.  While a network
trains they move, so `TapeOps` keeps them as inputs, keeps what `const` cuts from the gradient, and counts the
comparisons.  What it records is read twice: as the values of a step, and backwards as its gradients (`adjoint.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spikequant.law.errors import Unsupported
from spikequant.law.neurons import step
from spikequant.law.noise import NOISE_ROLES
from spikequant.law.products import Product
from spikequant.law.rounding import Rounding
from spikequant.law.spec import NeuronSpec

LEAVES = ("x", "state", "param", "noise", "tick", "number")


@dataclass(frozen=True, eq=False)
class Value:
    """One value of a step.

    Attributes:
        word: a leaf (`LEAVES`), ``detach`` (a value that nothing is learned through) or a word of the law.
        args: what the word is applied to.
        name: of a state, a parameter or a noise.
        detail: what completes the word: the rounding of ``shr``, the limits of ``clip``, a number, and for ``ge``
            whether it passes the surrogate.
    """

    index: int
    word: str
    args: tuple[Value, ...] = ()
    name: str = ""
    detail: tuple[Any, ...] = ()


class TapeOps:
    """The reader that writes down a step for a kernel.

    Args:
        compares: `TorchOps.compares`: with more than one, the first comparison of a step takes all of the gradient.
    """

    def __init__(self, *, compares: int = 1) -> None:
        self.compares, self.compared = compares, 0
        self.values: list[Value] = []
        self.leaves: dict[tuple[Any, ...], Value] = {}

    def make(self, word: str, *args: Value, detail: tuple[Any, ...] = ()) -> Value:
        """A new value behind all that were made before."""
        self.values.append(Value(len(self.values), word, args, "", detail))
        return self.values[-1]

    def leaf(self, word: str, name: str = "", detail: tuple[Any, ...] = ()) -> Value:
        """An input or a number; the same one gives the same value."""
        key = (word, name, detail)
        if key not in self.leaves:
            self.values.append(Value(len(self.values), word, (), name, detail))
            self.leaves[key] = self.values[-1]
        return self.leaves[key]

    def const(self, value: Any) -> Value:
        """A number, or a value that nothing is learned through."""
        if isinstance(value, Value):
            return value if value.word in ("number", "detach") else self.make("detach", value)
        return self.leaf("number", detail=(int(value),))

    def add(self, a: Value, b: Value) -> Value:
        """``a + b``."""
        return self.make("add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """``a - b``."""
        return self.make("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """``a * b``."""
        return self.make("mul", a, b)

    def shr(self, a: Value, n: Value, rounding: Rounding, noise: Value | None = None) -> Value:
        """``a / 2^n`` under the named rounding."""
        if not is_fixed(n):
            raise Unsupported("a right shift by a value that moves within a step has no kernel")
        return self.make("shr", a, n, *(() if noise is None else (noise,)), detail=(rounding,))

    def clip(self, a: Value, low: int, high: int) -> Value:
        """`a` inside ``[low, high]``."""
        return self.make("clip", a, detail=(low, high))

    def ge(self, a: Value, b: Value) -> Value:
        """1 where ``a >= b``."""
        self.compared += 1
        return self.make("ge", a, b, detail=(self.compares == 1 or self.compared == 1,))

    def where(self, condition: Value, a: Value, b: Value) -> Value:
        """`a` where `condition`, else `b`."""
        return self.make("where", condition, a, b)

    def max(self, a: Value, b: Value) -> Value:
        """The larger of two."""
        return self.make("max", a, b)

    def dot(self, x: Value, product: Product) -> Value:
        """A linear map is no word of a neuron's step."""
        raise Unsupported("a step that contains a linear map has no kernel")


@dataclass(frozen=True, eq=False)
class Tape:
    """A recorded step.

    Attributes:
        values: everything that the results need, each behind its arguments.
        states: the new states by name.
        output: what leaves the neuron.
        params: names of the parameters that are read, in order.
        noises: names of the states whose rounding reads noise.
        ticks: whether the step depends on its number.
    """

    values: tuple[Value, ...]
    states: Mapping[str, Value]
    output: Value
    params: tuple[str, ...]
    noises: tuple[str, ...]
    ticks: bool


def is_fixed(value: Value) -> bool:
    """Whether a value depends on parameters and numbers alone.

    >>> ops = TapeOps()
    >>> is_fixed(ops.add(ops.leaf("param", "v_shift"), ops.const(3))), is_fixed(ops.leaf("x"))
    (True, False)
    """
    return value.word in ("param", "number") or (value.word not in LEAVES and all(is_fixed(a) for a in value.args))


def record_step(spec: NeuronSpec, params: Iterable[str], *, compares: int = 1) -> Tape:
    """The step of a neuron whose prepared parameters have the given names.

    Raises:
        Unsupported: the spec has a word that no kernel has.
    """
    ops = TapeOps(compares=compares)
    known = {name: ops.leaf("param", name) for name in sorted(params)}
    old = {name: ops.leaf("state", name) for name in spec.state_formats()}
    noise = {name: ops.leaf("noise", name) for name in NOISE_ROLES}
    tick = ops.leaf("tick") if spec.adapt_every > 1 else None
    new, output = step(ops, spec, known, old, ops.leaf("x"), noise=noise.__getitem__, tick=tick)
    needed = _needed((*new.values(), output))
    values = tuple(v for v in ops.values if v.index in needed)
    return Tape(
        values,
        new,
        output,
        tuple(v.name for v in values if v.word == "param"),
        tuple(v.name for v in values if v.word == "noise"),
        any(v.word == "tick" for v in values),
    )


def _needed(roots: Iterable[Value]) -> set[int]:
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if value.index not in found:
            found.add(value.index)
            waiting += value.args
    return found

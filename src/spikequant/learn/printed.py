"""The law printed as Python text, for real numbers and for integers, with parameters as literals or arrays.

`TextOps` reads the ten words and writes one assignment per word.  The text is plain arithmetic, so that numba
compiles it and Python runs it as it is; ``wide`` is float64 or int64, in which all arithmetic is done.  That it
equals `IntOps` and `RealOps` bit by bit is what `tests/learn` check.  `readers/emit.py` prints integer networks whose
parameters are all known; learning needs real ones, and parameters that change while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spikequant.law.errors import Unsupported
from spikequant.law.neurons import prepare, step
from spikequant.law.products import Product
from spikequant.law.rounding import Rounding
from spikequant.law.spec import NeuronSpec
from spikequant.readers.emit_python import ROUNDED

STATES = ("v", "a", "r")
HELD = {"per_neuron": "per_neuron[j]", "base": "base[0]"}
"""Parameters that are no literals, by the text that stands for them."""


class TextOps:
    """The reader that prints: values are names or literals; `lines` is the program so far."""

    def __init__(self, *, real: bool) -> None:
        self.real = real
        self.lines: list[str] = []

    def _let(self, expression: str) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return name

    def const(self, value: Any) -> str:
        """A literal; names pass."""
        if isinstance(value, str):
            return value
        number = float(value) if self.real else int(value)
        return repr(number) if number >= 0 else f"({number!r})"

    def add(self, a: str, b: str) -> str:
        """``a + b``."""
        return self._let(f"{a} + {b}")

    def sub(self, a: str, b: str) -> str:
        """``a - b``."""
        return self._let(f"{a} - {b}")

    def mul(self, a: str, b: str) -> str:
        """``a * b``."""
        return self._let(f"{a} * {b}")

    def shr(self, a: str, n: str, rounding: Rounding, noise: str | None = None) -> str:
        """``a / 2^n`` under the named rounding, not rounded on real numbers; `n` is a literal."""
        try:
            shift = int(float(n))
        except ValueError:
            raise Unsupported(f"a right shift by {n}, which is no literal, cannot be printed") from None
        if self.real:
            return a if shift == 0 else self._let(f"{a} * {2.0**-shift!r}")
        if shift == 0:
            return a
        if rounding == "stochastic" and noise is None:
            raise Unsupported("stochastic rounding needs its noise words")
        mask, half, whole = (str(value) for value in (2**shift - 1, 2 ** (shift - 1), 2**shift))
        cut = f"({a} & {mask})"
        form = ROUNDED[rounding]
        return self._let(form.format(a=a, n=shift, cut=cut, half=half, mask=mask, whole=whole, noise=noise))

    def clip(self, a: str, low: Any, high: Any) -> str:
        """`a` inside ``[low, high]``."""
        low, high = self.const(low), self.const(high)
        return self._let(f"{low} if {a} < {low} else ({high} if {a} > {high} else {a})")

    def ge(self, a: str, b: str) -> str:
        """1 where ``a >= b``."""
        return self._let(f"{self.const(1)} if {a} >= {b} else {self.const(0)}")

    def where(self, condition: str, a: str, b: str) -> str:
        """`a` where `condition`, else `b`."""
        return self._let(f"{a} if {condition} != {self.const(0)} else {b}")

    def max(self, a: str, b: str) -> str:
        """The larger of two."""
        return self._let(f"{a} if {a} > {b} else {b}")

    def dot(self, x: str, product: Product) -> str:
        """A linear map is no word of a step."""
        raise Unsupported("a step that contains a linear map cannot be printed")


def step_text(spec: NeuronSpec, params: Mapping[str, Any], name: str) -> str:
    """``name(n, x, v, a, r, per_neuron, base, tick, noise_v, noise_a, out)``: the law's step of `n` neurons, in place.

    `params` that are the text ``"per_neuron"`` or ``"base"`` are read from that array, all others are literals.
    """
    ops = TextOps(real=spec.is_real)
    known = {key: HELD[value] if isinstance(value, str) else ops.const(value) for key, value in params.items()}
    ready = _prepared(spec, params, known)
    states = tuple(s for s in STATES if s in spec.state_formats())
    noise: dict[str, str] = {"v": "noise_v[j]", "a": "noise_a[j]"}
    new, output = step(
        ops, spec, ready, {s: f"old_{s}" for s in states}, "wide(x[j])", noise=noise.__getitem__, tick=ops.const("tick")
    )
    loads = [f"old_{s} = wide({s}[j])" for s in states]
    stores = [f"{s}[j] = {value}" for s, value in new.items()] + [f"out[j] = {output}"]
    body = "".join(f"        {line}\n" for line in (*loads, *ops.lines, *stores))
    return f"def {name}(n, x, v, a, r, per_neuron, base, tick, noise_v, noise_a, out):\n    for j in range(n):\n{body}"


def _prepared(spec: NeuronSpec, params: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """What the law computes before the first step, computed now."""
    from spikequant.law.ops import IntOps, RealOps

    ops: Any = RealOps() if spec.is_real else IntOps()
    fixed = {key: ops.const(value) for key, value in params.items() if not isinstance(value, str)}
    computed = {key: value for key, value in prepare(ops, spec, fixed).items() if key not in fixed}
    text = TextOps(real=spec.is_real)
    return {**known, **{key: text.const(value) for key, value in computed.items()}}


def scalar_text(name: str, arguments: tuple[str, ...], real: bool, body: Callable[[TextOps], str]) -> str:
    """``name(arguments)``: what `body` computes, returned."""
    ops = TextOps(real=real)
    result = body(ops)
    lines = "".join(f"    {line}\n" for line in (*(f"{a} = wide({a})" for a in arguments if a != "noise"), *ops.lines))
    return f"def {name}({', '.join(arguments)}):\n{lines}    return {result}\n"


def loop_text(name: str, real: bool, body: Callable[[TextOps], str]) -> str:
    """``name(n, values, noise)``: every value replaced by what `body` computes of ``value`` and ``noise[j]``."""
    ops = TextOps(real=real)
    result = body(ops)
    lines = "".join(f"        {line}\n" for line in ("value = wide(values[j])", *ops.lines))
    return f"def {name}(n, values, noise):\n    for j in range(n):\n{lines}        values[j] = {result}\n"

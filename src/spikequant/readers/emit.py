"""The emitter: the law's step recorded as straight-line code, for printers of other languages.

`EmitOps` reads the ten words.  It carries the interval of every value (`RangeOps`), so that a printer knows which
width is proven; it folds what the spec and the parameters fix, and leaves out what cannot act: a gain of 1, a
shift by 0, a limit that no value reaches.  `record` gives the `Program` of a neuron layer, `record_join` of a join.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spikequant.law.bounds import Interval, RangeOps, exact, full_state
from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntArray
from spikequant.law.network import JoinNode, NeuronNode
from spikequant.law.neurons import prepare, step
from spikequant.law.ops import IntOps
from spikequant.law.products import Product
from spikequant.law.rounding import Rounding

INT = IntOps()


@dataclass(eq=False)
class Term:
    """One value of a program: an input, a known array, or a word applied to terms.

    ``detail`` completes the word: the rounding of ``shr``, the limits of ``clip``, bits and lowest value of ``wrap``
    (``clip`` and ``shr`` of an overflow that wraps, folded into one).
    """

    word: str
    args: tuple[Term, ...]
    interval: Interval
    name: str = ""
    known: IntArray | None = None
    detail: tuple[Any, ...] = ()

    @property
    def low(self) -> int:
        """Smallest value of any element."""
        return int(np.min(self.interval.low))

    @property
    def high(self) -> int:
        """Largest value of any element."""
        return int(np.max(self.interval.high))

    @property
    def constant(self) -> int | None:
        """Its value, if it is known and the same for all elements."""
        return int(self.known) if self.known is not None and self.known.ndim == 0 else None


class EmitOps:
    """The reader that writes down what it is asked."""

    def __init__(self) -> None:
        self.ranges = RangeOps()
        self.seen: dict[tuple[Any, ...], Term] = {}

    def input(self, name: str, interval: Interval) -> Term:
        """A value that the program is given."""
        return Term("input", (), interval, name)

    def const(self, value: Any) -> Term:
        """A known value; arrays of one value become scalars."""
        if isinstance(value, Term):
            return value
        known = np.asarray(value, dtype=np.int64)
        if known.size and bool(np.all(known == known.reshape(-1)[0])):
            known = known.reshape(-1)[0]
        key = ("const", known.shape, known.tobytes())
        if key not in self.seen:
            self.seen[key] = Term("const", (), Interval(exact(known), exact(known)), known=np.asarray(known))
        return self.seen[key]

    def make(self, word: str, interval: Interval, *args: Term, detail: tuple[Any, ...] = ()) -> Term:
        """The term of a word; the same words on the same terms give the same term."""
        key = (word, *(id(a) for a in args), detail)
        if key not in self.seen:
            self.seen[key] = Term(word, args, interval, detail=detail)
        return self.seen[key]

    def folded(self, rule: Callable[..., IntArray], *args: Term) -> Term | None:
        """The known result of a rule on known arguments."""
        if any(a.known is None for a in args):
            return None
        return self.const(rule(*(a.known for a in args)))

    def add(self, a: Term, b: Term) -> Term:
        """``a + b``."""
        if a.constant == 0:
            return b
        if b.constant == 0:
            return a
        return self.folded(INT.add, a, b) or self.make("add", self.ranges.add(a.interval, b.interval), a, b)

    def sub(self, a: Term, b: Term) -> Term:
        """``a - b``; a difference with the laps around a register is ``wrap``."""
        if b.constant == 0:
            return a
        interval = self.ranges.sub(a.interval, b.interval)
        lap = self._lap(a, b)
        if lap is not None:
            bits, low = lap
            return self.make("wrap", self.ranges.clip(interval, low, low + 2**bits - 1), a, detail=lap)
        return self.folded(INT.sub, a, b) or self.make("sub", interval, a, b)

    def _lap(self, a: Term, b: Term) -> tuple[int, int] | None:
        """``(bits, low)`` where ``b`` is ``((a - low) >> bits) * 2^bits``."""
        if b.word != "mul" or b.args[0].word != "shr" or b.args[0].detail != ("floor",):
            return None
        offset, bits = b.args[0].args[0], b.args[0].args[1].constant
        if bits is None or b.args[1].constant != 2**bits:
            return None
        if offset is a:
            return bits, 0
        low = offset.args[1].constant if offset.word == "sub" and offset.args[0] is a else None
        return None if low is None else (bits, low)

    def mul(self, a: Term, b: Term) -> Term:
        """``a * b``; a known factor stands second."""
        if a.known is not None and b.known is None:
            a, b = b, a
        if b.constant == 1:
            return a
        if 0 in (a.constant, b.constant):
            return self.const(0)
        return self.folded(INT.mul, a, b) or self.make("mul", self.ranges.mul(a.interval, b.interval), a, b)

    def shr(self, a: Term, n: Term, rounding: Rounding, noise: Term | None = None) -> Term:
        """``a / 2^n`` under the named rounding."""
        if n.known is None:
            raise Unsupported("a right shift by a value that is not a parameter cannot be printed")
        if n.constant == 0:
            return a
        if a.known is not None and rounding != "stochastic":
            return self.const(INT.shr(a.known, n.known, rounding))
        interval = self.ranges.shr(a.interval, n.interval, rounding)
        args = (a, n) if rounding != "stochastic" or noise is None else (a, n, noise)
        return self.make("shr", interval, *args, detail=(rounding,))

    def clip(self, a: Term, low: int, high: int) -> Term:
        """`a` inside ``[low, high]``."""
        if low <= a.low and a.high <= high:
            return a
        if a.known is not None:
            return self.const(INT.clip(a.known, low, high))
        return self.make("clip", self.ranges.clip(a.interval, low, high), a, detail=(low, high))

    def ge(self, a: Term, b: Term) -> Term:
        """1 where ``a >= b``."""
        interval = self.ranges.ge(a.interval, b.interval)
        if bool(np.all(interval.low == 1)) or bool(np.all(interval.high == 0)):
            return self.const(int(np.max(interval.low)))
        return self.folded(INT.ge, a, b) or self.make("ge", interval, a, b)

    def where(self, condition: Term, a: Term, b: Term) -> Term:
        """`a` where `condition`, else `b`."""
        if condition.constant is not None or a is b:
            return b if condition.constant == 0 else a
        if condition.known is not None and a.known is not None and b.known is not None:
            return self.const(INT.where(condition.known, a.known, b.known))
        interval = self.ranges.where(condition.interval, a.interval, b.interval)
        return self.make("where", interval, condition, a, b)

    def max(self, a: Term, b: Term) -> Term:
        """The larger of two."""
        if a.low >= b.high:
            return a
        if b.low >= a.high:
            return b
        return self.folded(INT.max, a, b) or self.make("max", self.ranges.max(a.interval, b.interval), a, b)

    def dot(self, x: Term, product: Product) -> Term:
        """A linear map is no word of a neuron's step."""
        raise Unsupported("a step that contains a linear map cannot be printed")


@dataclass(frozen=True, eq=False)
class Program:
    """Straight-line code for one element.

    Attributes:
        terms: everything that is needed, each behind its arguments.
        outputs: results by name: states, and ``out`` for what leaves the node.
        inputs: names that are read, in the order ``x0 x1 ... states noise tick``.
    """

    terms: tuple[Term, ...]
    outputs: Mapping[str, Term]
    inputs: tuple[str, ...] = field(default=())

    @property
    def tables(self) -> tuple[Term, ...]:
        """Known values that differ from element to element."""
        return tuple(t for t in self.terms if t.known is not None and t.constant is None)


def record(node: NeuronNode, sources: Sequence[Interval]) -> Program:
    """The step of a neuron layer on inputs of the given ranges."""
    ops, params = EmitOps(), {}
    for name, value in node.params.items():
        params[name] = _named(ops.const(value), name)
    total: Term | None = None
    for k, (gain, source) in enumerate(zip(node.gains, sources, strict=True)):
        part = ops.mul(_named(ops.const(gain), f"gain{k}"), ops.input(f"x{k}", source))
        total = part if total is None else ops.add(total, part)
    assert total is not None
    state = {name: ops.input(name, interval) for name, interval in full_state(node.spec).items()}
    words = Interval(exact(0), exact(2**32 - 1))
    ready = {name: _named(term, name) for name, term in prepare(ops, node.spec, params).items()}
    new, output = step(
        ops,
        node.spec,
        ready,
        state,
        total,
        noise=lambda name: ops.seen.setdefault(("noise", name), ops.input(f"noise_{name}", words)),
        tick=ops.input("tick", Interval(exact(0), exact(1))),
    )
    outputs = dict(new) if node.spec.output == "state" else {**new, "out": output}
    return _program(outputs)


def record_join(node: JoinNode, sources: Sequence[Interval]) -> Program:
    """The element-wise kinds of a join: add, product, maximum, iand."""
    ops = EmitOps()
    terms = [ops.input(f"x{k}", source) for k, source in enumerate(sources)]
    if node.kind == "iand":
        return _program({"out": ops.mul(ops.sub(ops.const(1), terms[0]), terms[1])})
    rule = {"add": ops.add, "max": ops.max, "product": ops.mul}[node.kind]
    scaled = [ops.mul(ops.const(gain), term) for gain, term in zip(node.gains, terms, strict=True)]
    total = scaled[0]
    for part in scaled[1:]:
        total = rule(total, part)
    return _program({"out": total})


def _named(term: Term, name: str) -> Term:
    if term.known is not None and not term.name:
        term.name = name
    return term


def _program(outputs: Mapping[str, Term]) -> Program:
    """What the outputs need, in order; what they do not need is left out."""
    order: dict[int, Term] = {}
    for term in outputs.values():
        _collect(term, order)
    terms = tuple(order.values())
    return Program(terms, outputs, tuple(t.name for t in terms if t.word == "input"))


def _collect(root: Term, order: dict[int, Term]) -> None:
    waiting: list[tuple[Term, Iterator[Term]]] = [(root, iter(root.args))]
    while waiting:
        term, rest = waiting[-1]
        following = next((a for a in rest if id(a) not in order), None)
        if following is not None:
            waiting.append((following, iter(following.args)))
        else:
            order.setdefault(id(waiting.pop()[0]), term)

"""A recorded program of the law (`readers/emit.py`) as ONNX nodes: one or a few per term.

A term is int32 where its proof allows, else int64.  ONNX has no arithmetic right shift, so a floor is the quotient of
a number that is made non-negative first: with ``q = low >> n`` for the smallest proven value,
``(a - q * 2^n) / 2^n + q``.  Integer ``Div`` cuts toward zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spikequant.law.rounding import Rounding
from spikequant.readers.emit import Program, Term
from spikequant.readers.onnx_.graph import BOOL, INT64, Graph, Value, kind_for

ARITHMETIC = {"add": "Add", "sub": "Sub", "mul": "Mul"}


class StepPrinter:
    """Prints one program into a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[int, Value] = {}

    def outputs(self, program: Program, inputs: Mapping[str, Value]) -> dict[str, tuple[Term, Value | None]]:
        """Append the program's nodes; results by name, None for a value that is known."""
        for term in program.terms:
            if term.known is None:
                self.values[id(term)] = inputs[term.name] if term.word == "input" else self.expression(term)
        return {name: (term, self.values.get(id(term))) for name, term in program.outputs.items()}

    def at(self, term: Term, kind: str) -> Value:
        """A term as a tensor of `kind`."""
        if term.known is not None:
            return self.graph.const(term.known, kind, term.name)
        return self.graph.cast(self.values[id(term)], kind)

    def expression(self, term: Term) -> Value:
        """The node or nodes of one word."""
        if term.word in ARITHMETIC:
            kind = kind_for(min(t.low for t in (term, *term.args)), max(t.high for t in (term, *term.args)))
            return self.graph.op(ARITHMETIC[term.word], *(self.at(a, kind) for a in term.args))
        result: Value = getattr(self, f"_word_{term.word}")(term)
        return result

    def _word_ge(self, term: Term) -> Value:
        a, b = term.args
        kind = kind_for(min(a.low, b.low), max(a.high, b.high))
        return self.graph.op("GreaterOrEqual", self.at(a, kind), self.at(b, kind), kind=BOOL)

    def _word_where(self, term: Term) -> Value:
        condition, a, b = term.args
        kind = kind_for(min(a.low, b.low), max(a.high, b.high))
        return self.graph.op("Where", self.at(condition, BOOL), self.at(a, kind), self.at(b, kind), kind=kind)

    def _word_clip(self, term: Term) -> Value:
        (a,), (low, high) = term.args, term.detail
        kind = kind_for(min(a.low, low), max(a.high, high))
        return self.graph.clip(self.at(a, kind), low, high)

    def _word_max(self, term: Term) -> Value:
        a, b = term.args
        kind = kind_for(min(a.low, b.low), max(a.high, b.high))
        return self.graph.maximum(self.at(a, kind), self.at(b, kind))

    def _word_wrap(self, term: Term) -> Value:
        (a,), (bits, low) = term.args, term.detail
        kind = kind_for(min(a.low, a.low - low, low), max(a.high, a.high - low, 2**bits))
        offset = self._plus(self.at(a, kind), -low)
        return self._plus(self.graph.op("Mod", offset, self.graph.const(2**bits, kind)), low)

    def _plus(self, value: Value, amount: Any) -> Value:
        """`value` plus a known number or array."""
        return self.graph.op("Add", value, self.graph.const(amount, value.kind)) if np.any(amount) else value

    def _word_shr(self, term: Term) -> Value:
        rounding: Rounding = term.detail[0]
        a, n = term.args[0], np.asarray(term.args[1].known)
        half = np.where(n > 0, np.int64(1) << np.maximum(n - 1, 0), 0)  # nothing is cut by n = 0
        most = int(half.max())
        if rounding == "floor":
            return self._floor(self.at(a, kind_for(a.low, a.high)), a.low, a.high, n)
        if rounding == "toward_zero":
            return self._quotient(a, n)
        if rounding == "half_up" or (rounding == "half_away" and a.low >= 0):
            return self._floor(self._raised(a, half, most), a.low, a.high + most, n)
        if rounding == "half_away":
            return self._half_away(a, n, half)
        if rounding == "half_even":
            return self._half_even(a, n, half)
        return self._stochastic(term, n)

    def _raised(self, a: Term, amount: Any, most: int) -> Value:
        return self._plus(self.at(a, kind_for(a.low, a.high + most)), amount)

    def _quotient(self, a: Term, n: Any) -> Value:
        size = np.int64(1) << n
        kind = kind_for(a.low, max(a.high, int(size.max())))
        return self.graph.op("Div", self.at(a, kind), self.graph.const(size, kind))

    def _floor(self, value: Value, low: int, high: int, n: Any) -> Value:
        """``floor(value / 2^n)`` of a value in ``[low, high]``."""
        size, least = np.int64(1) << n, np.int64(low) >> n
        offset = -(least * size) if low < 0 else np.zeros_like(n)
        kind = kind_for(low, max(high + int(offset.max()), int(size.max())), "a shift")
        whole = self._plus(self.graph.cast(value, kind), offset)
        quotient = self.graph.op("Div", whole, self.graph.const(size, kind))
        return self._plus(quotient, least) if low < 0 else quotient

    def _half_away(self, a: Term, n: Any, half: Any) -> Value:
        size, most = np.int64(1) << n, int(half.max())
        kind = kind_for(a.low - most, max(a.high + most, int(size.max())))
        value = self.at(a, kind)
        below = self.graph.op("Less", value, self.graph.const(0, kind), kind=BOOL)
        signed = self.graph.op("Where", below, self.graph.const(-half, kind), self.graph.const(half, kind), kind=kind)
        return self.graph.op("Div", self.graph.op("Add", value, signed), self.graph.const(size, kind))

    def _half_even(self, a: Term, n: Any, half: Any) -> Value:
        """``floor((a + half - 1 + (q & 1)) / 2^n)`` with the floor ``q`` of ``a / 2^n``."""
        most = int(half.max())
        kind = kind_for(a.low, a.high + most)
        value = self.at(a, kind)
        quotient = self.graph.cast(self._floor(value, a.low, a.high, n), kind)
        odd = self.graph.op("Mod", quotient, self.graph.const(2, kind))
        if np.any(n == 0):
            odd = self.graph.op("Mul", odd, self.graph.const((n > 0).astype(np.int64), kind))
        raised = self.graph.op("Add", self._plus(value, np.maximum(half - 1, 0)), odd)
        return self._floor(raised, a.low, a.high + most, n)

    def _stochastic(self, term: Term, n: Any) -> Value:
        """``floor((a + u) / 2^n)``, ``u`` the lowest ``n`` bits of the noise word."""
        a, noise = term.args[0], term.args[2]
        size = np.int64(1) << n
        low_bits = self.graph.op("Mod", self.at(noise, INT64), self.graph.const(size, INT64))
        most = int(size.max()) - 1
        kind = kind_for(a.low, a.high + most)
        raised = self.graph.op("Add", self.at(a, kind), self.graph.cast(low_bits, kind))
        return self._floor(raised, a.low, a.high + most, n)

"""Registers of a neuron and what happens to them: load, narrow, leak.

A register that is still as it was loaded is *fresh*: a code on its own grid.  It becomes a
value in accumulator LSBs when something is added to it, and a code again when it is
narrowed.  An exact leak of a value leaves a *pending* shift that its store takes along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from spikequant.law.errors import Unsupported
from spikequant.law.ops import Ops
from spikequant.law.spec import Leak, StateFormat

V = TypeVar("V")
Noise = Callable[[str], V]


class Register(Generic[V]):
    """A state while a step runs: a fresh code, or a value in accumulator LSBs with a pending shift."""

    def __init__(self, name: str, code: V, register: StateFormat | None) -> None:
        self.name, self.register = name, register
        self.code: V | None = code if register is not None else None
        self.value: V | None = None if register is not None else code
        self.pending = 0
        self.loose = False  # the code changed on its own grid and may lie outside the register

    @property
    def is_fresh(self) -> bool:
        """Whether the register holds a code on its own grid."""
        return self.code is not None and not self.pending

    def set(self, value: V) -> None:
        """The register becomes a value in accumulator LSBs."""
        self.code, self.value = None, value


class Registers(Generic[V]):
    """Operations on registers under one reader and one set of parameters."""

    def __init__(self, ops: Ops[V], params: Mapping[str, V], noise: Noise[V] | None) -> None:
        self.ops, self.params, self.noise = ops, params, noise

    def load(self, register: Register[V]) -> V:
        """The register's value in accumulator LSBs."""
        if register.pending:
            raise Unsupported(
                f"neuron spec: after an exact leak of {register.name} only its store may follow; "
                "name the leak's rounding"
            )
        if register.value is None:
            assert register.code is not None
            register.value = self.ops.mul(register.code, self.params[f"{register.name}_load"])
        return register.value

    def narrow(self, register: Register[V]) -> None:
        """Bring a register back to what it can hold: shift, round, saturate or wrap."""
        fmt = register.register
        if fmt is None:
            return
        if register.code is not None and register.is_fresh:
            if register.loose:
                register.code, register.value, register.loose = self.fit(register.code, fmt), None, False
            return
        assert register.value is not None
        value, shift = register.value, self.params[f"{register.name}_shift"]
        if f"{register.name}_mul" in self.params:
            value = self.ops.mul(value, self.params[f"{register.name}_mul"])
        if register.pending:
            shift = self.ops.add(shift, self.ops.const(register.pending))
        rounded = self.ops.shr(value, shift, fmt.rounding, self.words(register.name, fmt))
        register.code, register.value, register.pending = self.fit(rounded, fmt), None, 0

    def words(self, name: str, fmt: StateFormat) -> V | None:
        """The noise of a stochastic register; None for the others."""
        if fmt.rounding != "stochastic":
            return None
        if self.noise is None:
            raise Unsupported(f"state {name} rounds stochastically: step() needs noise=")
        return self.noise(name)

    def fit(self, code: V, fmt: StateFormat) -> V:
        """Saturate or wrap."""
        ops = self.ops
        if fmt.levels:
            return self.on_a_level(ops.clip(code, fmt.format.min, fmt.format.max), fmt)
        if fmt.overflow == "saturate":
            return ops.clip(code, fmt.format.min, fmt.format.max)
        laps = ops.const(ops.shr(ops.sub(code, ops.const(fmt.format.min)), ops.const(fmt.bits), "floor"))
        wrapped = ops.sub(code, ops.mul(laps, ops.const(2**fmt.bits)))
        return ops.clip(wrapped, fmt.format.min, fmt.format.max)  # changes nothing; it tells RangeOps

    def on_a_level(self, code: V, fmt: StateFormat) -> V:
        """The highest level whose cut the code reaches; straight-through, so that a gradient passes."""
        ops, level = self.ops, self.params["v_level0"]
        for k in range(1, fmt.levels):
            reached = ops.const(ops.ge(code, self.params[f"v_cut{k}"]))
            level = ops.add(level, ops.mul(reached, self.params[f"v_rise{k}"]))
        moved = ops.add(code, ops.const(ops.sub(level, code)))
        return ops.clip(moved, fmt.format.min, fmt.format.max)  # changes nothing; it tells RangeOps

    def decay(self, register: Register[V], leak: Leak, key: str) -> None:
        """Let a register leak: exactly, on its own grid, or in accumulator LSBs."""
        if leak.form == "none":
            return
        if leak.form == "multiply" and leak.rounding is None:
            self._decay_exactly(register, leak, key)
        elif leak.form.startswith("constant") or not register.is_fresh:  # a constant stands in accumulator LSBs
            register.set(self.decayed(self.load(register), leak, key))
        else:
            assert register.code is not None
            register.code, register.value, register.loose = self.decayed(register.code, leak, key), None, True

    def _decay_exactly(self, register: Register[V], leak: Leak, key: str) -> None:
        if register.code is not None:
            register.set(self.ops.mul(register.code, self.params[f"{register.name}_decay"]))
            return
        register.set(self.ops.mul(self.load(register), self.params[key]))
        if register.register is not None:
            register.pending = leak.bits

    def decayed(self, value: V, leak: Leak, key: str) -> V:
        """`value` after one step of a leak that rounds where it stands."""
        ops, amount, rounding = self.ops, self.params[key], leak.rounding or "floor"
        if leak.form == "multiply":
            return ops.shr(ops.mul(value, amount), ops.const(leak.bits), rounding)
        if leak.form == "constant":
            return ops.sub(value, ops.max(ops.sub(ops.const(0), amount), self._least(value, amount)))
        if leak.form == "constant_signed":
            return ops.sub(value, amount)
        step_down = ops.shr(value, amount, rounding)
        if leak.form == "two_shifts":
            return ops.sub(ops.sub(value, step_down), ops.shr(value, self.params[f"{key}2"], rounding))
        if leak.form == "shift_forced":
            step_down = self._at_least_one(value, step_down)
        return ops.sub(value, step_down)

    def _least(self, a: V, b: V) -> V:
        return self.ops.where(self.ops.const(self.ops.ge(a, b)), b, a)

    def _at_least_one(self, value: V, step_down: V) -> V:
        """A decrement of 0 becomes 1 toward zero, unless the value is 0."""
        ops, zero, one = self.ops, self.ops.const(0), self.ops.const(1)
        sign = ops.const(ops.sub(ops.ge(value, one), ops.ge(ops.const(-1), value)))
        is_zero = ops.const(ops.mul(ops.ge(step_down, zero), ops.ge(zero, step_down)))
        return ops.where(is_zero, sign, step_down)

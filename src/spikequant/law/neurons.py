"""The law: one step of every neuron, written once over the ten words.

``prepare`` computes what does not change over time, ``step`` is one time step.  Both are
straight-line code: every ``if`` below looks at the spec, never at a value, so that a
reader which prints text gets a program without branches.

Units.  The input ``x``, the bias, the thresholds and the reset stand in the LSB of the
accumulator, ``s * 2^-f``.  A stored membrane code counts ``v_load`` of these.  A register
that is still as it was loaded is *fresh*: its leak is then one exact product
``code * (v_load * leak / 2^q)``; a leak as the last phase joins the shift of the store.
In both cases the state is rounded once per step (DESIGN rule 2).

Parameters (integers of an integer network, reals of a real one; shapes broadcast against
the neuron's shape):

==========  ==========================================================================
``theta``   compare threshold: fires at ``v >= theta``
``reset``   what a soft reset subtracts, or the value that ``reset="value"`` sets
``bias``    added with the input (into the current, where that is a state)
``v_bias``  added to the membrane besides (Loihi's bias current)
``floor``   negative threshold, for ``lower != "none"``
``leak``    ``leak_int`` of `Leak` (``leak2`` for the second shift, ``leak_i``, ``leak_a``)
``v_load``  accumulator LSBs in one membrane code; ``i_load`` for the current
``v_shift`` right shift of the store; ``v_mul`` multiplier before it (absent: 1)
``x_shift`` right shift of ``narrow_input``
``a_shift`` fraction bits of the adaptive threshold; ``adapt`` its step per spike
``a_load``  accumulator LSBs in one whole unit of it (absent: 1)
==========  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from spikequant.law.ops import Ops
from spikequant.law.registers import Noise, Register, Registers
from spikequant.law.spec import NeuronSpec

V = TypeVar("V")


def prepare(ops: Ops[V], spec: NeuronSpec, params: Mapping[str, V]) -> dict[str, V]:
    """The parameters plus what can be computed before the first step."""
    ready = dict(params)
    for state, leak in (("v", spec.leak), ("i", spec.leak_i)):
        if leak is not None and leak.form == "multiply" and leak.rounding is None:
            factor = ready["leak" if state == "v" else "leak_i"]
            if getattr(spec, state) is not None:
                factor = ops.shr(ops.mul(ready[f"{state}_load"], factor), ops.const(leak.bits), "floor")
            ready[f"{state}_decay"] = factor
    return ready


def step(
    ops: Ops[V],
    spec: NeuronSpec,
    params: Mapping[str, V],
    state: Mapping[str, V],
    x: V,
    *,
    noise: Noise[V] | None = None,
    tick: V | None = None,
) -> tuple[dict[str, V], V]:
    """One time step: ``(new state, output)``.

    Args:
        ops: the reader.
        spec: what the neuron is.
        params: the result of `prepare`.
        state: stored codes by name: ``v``, and ``i``, ``a``, ``s``, ``r`` where the spec has them.
        x: the input sum in accumulator LSBs.
        noise: words of rounding noise by state name; needed by ``stochastic`` only.
        tick: 1 on the steps on which the adaptive threshold decays (``adapt_every > 1``).
    """
    machine = _Machine(ops, spec, params, state, x, noise, tick)
    for phase in spec.order:
        machine.run(phase)
    return machine.store()


class _Machine(Generic[V]):
    """The registers of one step and one method per phase."""

    def __init__(
        self,
        ops: Ops[V],
        spec: NeuronSpec,
        params: Mapping[str, V],
        state: Mapping[str, V],
        x: V,
        noise: Noise[V] | None,
        tick: V | None,
    ) -> None:
        self.ops, self.spec, self.params, self.tick = ops, spec, params, tick
        self.registers = Registers(ops, params, noise)
        self.x, self.state = x, state
        self.v = Register("v", state["v"], spec.v)
        self.i = Register("i", state["i"], spec.i) if spec.has_current else None
        self.a: V | None = state.get("a")
        self.hit: V | None = None  # 1 where the neuron fires at least once
        self.spikes: V | None = None  # how often
        self.active: V | None = None
        if spec.refractory:
            self.active = ops.const(ops.ge(ops.const(0), state["r"]))

    def run(self, phase: str) -> None:
        getattr(self, f"phase_{phase}")()

    def load(self, register: Register[V]) -> V:
        return self.registers.load(register)

    # -- phases, in the order of spec.PHASES -------------------------------------------

    def phase_decay_current(self) -> None:
        assert self.i is not None and self.spec.leak_i is not None
        self.registers.decay(self.i, self.spec.leak_i, "leak_i")

    def phase_add_current(self) -> None:
        assert self.i is not None
        self.i.set(self.ops.add(self.load(self.i), self.biased(self.x)))

    def phase_narrow_current(self) -> None:
        assert self.i is not None
        self.registers.narrow(self.i)

    def phase_narrow_input(self) -> None:
        fmt = self.spec.x
        if fmt is not None:
            shift = self.params["x_shift"]
            code = self.registers.fit(self.ops.shr(self.x, shift, fmt.rounding, self.registers.words("x", fmt)), fmt)
            self.x = self.ops.mul(code, self.params["x_load"])

    def phase_leak(self) -> None:
        self.registers.decay(self.v, self.spec.leak, "leak")

    def phase_leak_unless_fired(self) -> None:
        kept = self.load(self.v)
        assert self.hit is not None
        self.registers.decay(self.v, self.spec.leak, "leak")
        self.v.set(self.ops.where(self.hit, kept, self.load(self.v)))

    def biased(self, x: V) -> V:
        return self.ops.add(x, self.params["bias"]) if "bias" in self.params else x

    def phase_integrate(self) -> None:
        ops = self.ops
        drive = self.biased(self.x) if self.i is None else self.load(self.i)
        if "v_bias" in self.params:
            drive = ops.add(drive, self.params["v_bias"])
        if self.active is not None:
            drive = ops.where(self.active, drive, ops.const(0))
        value = ops.add(self.load(self.v), drive)
        if self.active is not None and self.spec.refractory_mode == "hold_zero":
            value = ops.where(self.active, value, ops.const(0))
        self.v.set(value)

    def phase_bound(self) -> None:
        value, floor = self.load(self.v), self.params["floor"]
        if self.spec.lower == "floor":
            self.v.set(self.ops.max(value, floor))
        else:
            self.v.set(self.ops.where(self.ops.const(self.ops.ge(value, floor)), value, self.ops.const(0)))

    def phase_narrow(self) -> None:
        self.registers.narrow(self.v)

    def phase_decay_threshold(self) -> None:
        leak = self.spec.leak_a
        assert leak is not None and self.a is not None
        if leak.form == "none":
            return
        if leak.form == "multiply" and self.spec.a is not None:
            rounding = leak.rounding or self.spec.a.rounding
            words = self.registers.words("a", self.spec.a) if rounding == "stochastic" else None
            product = self.ops.mul(self.a, self.params["leak_a"])
            lower = self.ops.shr(product, self.ops.const(leak.bits), rounding, words)
        else:
            lower = self.registers.decayed(self.a, leak, "leak_a")
        if self.spec.adapt_every > 1:
            assert self.tick is not None
            lower = self.ops.where(self.tick, lower, self.a)
        self.a = lower

    def adaptation(self) -> V | None:
        """The adaptive part of the threshold in accumulator LSBs."""
        if self.a is None:
            return None
        if self.spec.a is None:
            return self.a
        part = self.ops.shr(self.a, self.params["a_shift"], "floor")
        return self.ops.mul(part, self.params["a_load"]) if "a_load" in self.params else part

    def phase_fire(self) -> None:
        ops, theta, value = self.ops, self.params["theta"], self.load(self.v)
        adaptation = self.adaptation()
        if adaptation is not None:
            theta = ops.add(theta, adaptation)
        self.hit = self.spikes = self.fired(value, theta)
        if self.spec.spikes_max == 1:
            return
        value = ops.where(self.hit, ops.sub(value, self.reset_amount()), value)
        for _ in range(self.spec.spikes_max - 1):
            again = self.fired(value, theta)
            value = ops.where(again, ops.sub(value, self.reset_amount()), value)
            self.spikes = ops.add(self.spikes, again)
        self.v.set(value)

    def fired(self, value: V, theta: V) -> V:
        if self.spec.compare == ">=":
            return self.ops.ge(value, theta)
        return self.ops.sub(self.ops.const(1), self.ops.ge(theta, value))

    def reset_amount(self) -> V:
        amount, adaptation = self.params["reset"], self.adaptation()
        return self.ops.add(amount, adaptation) if self.spec.adapt_in_reset and adaptation is not None else amount

    def phase_reset(self) -> None:
        assert self.hit is not None
        self.reset_where(self.hit)

    def phase_reset_delayed(self) -> None:
        self.reset_where(self.state["s"])

    def reset_where(self, fired: V) -> None:
        ops, kind = self.ops, self.spec.reset
        if kind == "zero" and self.v.code is not None and not self.v.pending:
            self.v.code, self.v.value = ops.where(fired, ops.const(0), self.v.code), None
            return
        value = self.load(self.v)
        if kind == "zero":
            after = ops.const(0)
        elif kind == "value":
            after = self.params["reset"]
        else:
            after = ops.sub(value, self.reset_amount())
        self.v.set(ops.where(fired, after, value))

    def phase_raise_threshold(self) -> None:
        assert self.a is not None and self.spikes is not None
        ops = self.ops
        raised = ops.add(self.a, ops.mul(self.spikes, self.params["adapt"]))
        self.a = raised if self.spec.a is None else self.registers.fit(raised, self.spec.a)

    # -- the end of the step -----------------------------------------------------------

    def store(self) -> tuple[dict[str, V], V]:
        new: dict[str, V] = {}
        for register in (self.v, self.i):
            if register is not None:
                self.registers.narrow(register)
                stored = register.code if register.code is not None else register.value
                assert stored is not None
                new[register.name] = stored
        if self.a is not None:
            new["a"] = self.a
        if self.spec.output == "state":
            return new, new["v"]
        assert self.spikes is not None
        if self.spec.stores_spike:
            new["s"] = self.spikes
        if self.spec.refractory:
            new["r"] = self.refractory_after()
        return new, self.spikes

    def refractory_after(self) -> V:
        ops = self.ops
        assert self.hit is not None
        waited = ops.max(ops.sub(self.state["r"], ops.const(1)), ops.const(0))
        return ops.where(self.hit, ops.const(self.spec.refractory), waited)

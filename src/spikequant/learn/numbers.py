"""From millivolts to integers: the constants of a network under a precision, made once.

Integer units (DESIGN section 1).  The weight's LSB is ``w_lsb = w_max / (2^bits - 1)``; the accumulator's is
``w_lsb / gain`` with a whole `gain`; a membrane code counts ``2^v_shift`` of these, so that ``2^(bits - 1)`` codes
reach `Precision.membrane_reach_mv` or a few per cent further.  A float network has gain 1 and units of mV; its arrays
are float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spikequant.law import presets
from spikequant.law.errors import PlanError
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import NOISE_BITS, Rounding
from spikequant.law.spec import Leak, NeuronSpec, StateFormat
from spikequant.learn.config import DiehlCook, Precision, Register
from spikequant.learn.stdp import Rates, rule_named

LEAK_BITS = 10
GAIN_BITS = 6
SLOW_BITS = 30
FINE_BITS = 32
SCALE_BITS = 24
ADAPT_BITS = 16
COMMON_BITS = 16
ADDED_TRACES = 4
"""Largest trace where spikes add up."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Everything that the kernel is printed from.

    Attributes:
        real: whether this is the float network.
        learning, inferring, inhibitory: specs of the neuron with its adaptive threshold, of the same with a fixed
            one, and of the inhibitory neuron.
        params: their parameters by the same names; ``"per_neuron"`` marks what differs from neuron to neuron.
        gain, inhibit: accumulator units of one weight unit, and of one inhibitory spike.
        excite: what an excitatory spike gives to its inhibitory neuron.
        theta, adapt_unit: fixed threshold, and accumulator units of one unit of the adaptive part.
        adapt: its rise per spike in units of ``2^-adapt_bits``.
        carry: units of the adaptive part that go over to the common one at a time; 0 where there is none.
        full: with a neuron above this, they go.
        common_most: the largest common part, with `COMMON_BITS` fraction bits.
        w_max, w_lsb, a_lsb, v_lsb: largest weight in its units; what one unit is worth.
        fine_bits: fraction bits of a weight while it changes.
        norm: sum of a neuron's weights after normalisation.
        scale_bits: fraction bits of the normalisation's factor.
        trace_one, trace_max, trace_leak, trace_bits: the traces.
        rates: what the STDP rule reads.
        roundings: of the four roles.
    """

    real: bool
    learning: NeuronSpec
    inferring: NeuronSpec
    inhibitory: NeuronSpec
    params: dict[str, dict[str, Any]] = field(repr=False)
    gain: Any
    inhibit: Any
    excite: Any
    theta: Any
    adapt_unit: Any
    adapt: Any
    adapt_bits: int
    carry: int
    full: int
    common_most: int
    w_max: Any
    w_lsb: float
    a_lsb: float
    v_lsb: float
    fine_bits: int
    norm: Any
    scale_bits: int
    trace_one: Any
    trace_max: Any
    trace_leak: Any
    trace_bits: int
    rates: Rates
    roundings: dict[str, Rounding]

    @property
    def weight_type(self) -> Any:
        """The numpy type in which weights are held."""
        return np.float32 if self.real else np.int32

    @property
    def state_type(self) -> Any:
        """The numpy type of states and traces."""
        return np.float32 if self.real else np.int64

    @property
    def sum_type(self) -> Any:
        """The numpy type of sums."""
        return np.float64 if self.real else np.int64

    def base_of(self, common: int) -> Any:
        """The threshold in accumulator units that all neurons have: the fixed one and the common part."""
        if not self.carry:
            return self.theta
        return self.theta + (whole(common) * int(self.adapt_unit) >> int(self.params["learning"]["a_shift"]))

    def theta_of(self, adaptive: Any, common: int = 0) -> Any:
        """Thresholds in accumulator units for adaptive parts in their own units, and the common part."""
        if self.real:
            return self.theta + np.asarray(adaptive, dtype=np.float64)
        shift = int(self.params["learning"]["a_shift"])
        return self.base_of(common) + (np.asarray(adaptive, dtype=np.int64) >> shift) * int(self.adapt_unit)


def whole(common: int) -> int:
    """The common part of the thresholds in units of the adaptive ones, nearest."""
    return (common + (1 << (COMMON_BITS - 1))) >> COMMON_BITS


def numbers(config: DiehlCook, precision: Precision) -> Numbers:
    """The constants of `config` under `precision`.

    Raises:
        PlanError: an unknown STDP rule, thresholds beyond the membrane, or a common part of them beyond its word.
    """
    rule_named(config.rule)
    highest = config.threshold_mv + precision.threshold_reach_mv
    if not precision.is_real and highest > precision.membrane_reach_mv * (1 + 1e-9):
        raise PlanError(
            f"precision: thresholds may rise to {highest:g} mV, the membrane's register reaches "
            f"{precision.membrane_reach_mv:g} mV; such a neuron would never fire again. "
            "Raise membrane_reach_mv, or lower threshold_reach_mv"
        )
    return _real(config) if precision.is_real else _integer(config, precision)


def _specs(config: DiehlCook) -> tuple[NeuronSpec, NeuronSpec, NeuronSpec]:
    """The three specs over real numbers."""
    adaptive = presets.adaptive_lif(reset="value", refractory=config.refractory).replace(adapt_every=config.steps)
    fixed = presets.lif_leak_first(reset="value").replace(refractory=config.refractory)
    inhibitory = presets.lif_leak_first(reset="value").replace(refractory=2)
    if config.floor_mv is not None:
        adaptive, fixed = (s.replace(lower="floor", order=_with_bound(s.order)) for s in (adaptive, fixed))
    return adaptive, fixed, inhibitory


def _with_bound(order: tuple[Any, ...]) -> tuple[Any, ...]:
    at = order.index("integrate") + 1
    return (*order[:at], "bound", *order[at:])


def _slow_leak(config: DiehlCook) -> float:
    return math.exp(-config.steps * config.dt_ms / config.tau_adapt_ms)


# The inhibitory neuron of Diehl & Cook: threshold 20 mV above rest, reset to 15 mV, 10 ms.
INHIBITORY = {"theta": 20.0, "reset": 15.0, "tau_ms": 10.0}


def _real(config: DiehlCook) -> Numbers:
    learning, inferring, inhibitory = _specs(config)
    shared = {"reset": config.reset_mv, "leak": math.exp(-config.dt_ms / config.tau_ms)}
    if config.floor_mv is not None:
        shared["floor"] = config.floor_mv
    params: dict[str, dict[str, Any]] = {
        "learning": {**shared, "theta": config.threshold_mv, "adapt": config.adapt_mv, "leak_a": _slow_leak(config)},
        "inferring": {**shared, "theta": "per_neuron"},
        "inhibitory": {
            "theta": INHIBITORY["theta"],
            "reset": INHIBITORY["reset"],
            "leak": math.exp(-config.dt_ms / INHIBITORY["tau_ms"]),
        },
    }
    return Numbers(
        real=True,
        learning=learning,
        inferring=inferring,
        inhibitory=inhibitory,
        params=params,
        gain=1.0,
        inhibit=config.inhibit_mv,
        excite=config.excite_mv,
        theta=config.threshold_mv,
        adapt_unit=1.0,
        adapt=config.adapt_mv,
        adapt_bits=0,
        carry=0,
        full=0,
        common_most=0,
        w_max=config.w_max,
        w_lsb=1.0,
        a_lsb=1.0,
        v_lsb=1.0,
        fine_bits=0,
        norm=config.norm * config.inputs,
        scale_bits=0,
        trace_one=1.0,
        trace_max=1.0 if config.trace == "set" else math.inf,
        trace_leak=math.exp(-config.dt_ms / config.tau_trace_ms),
        trace_bits=0,
        rates=Rates(post=config.nu_post, pre=config.nu_pre, w_max=config.w_max, target=config.target),
        roundings=dict.fromkeys(("weight", "membrane", "threshold", "trace"), "floor"),
    )


@dataclass(frozen=True)
class _Units:
    """Scales of the integers."""

    w_lsb: float
    lsb: float
    gain: int
    v_shift: int
    a_lsb: float
    a_load: int
    a_shift: int

    def units(self, value_mv: float) -> int:
        """Millivolts in accumulator units, nearest."""
        return round(value_mv / self.lsb)


def _units(config: DiehlCook, precision: Precision) -> _Units:
    w_lsb = config.w_max / (2 ** precision.register("weight").bits - 1)
    code = precision.membrane_reach_mv / 2 ** (precision.register("membrane").bits - 1)
    ratio = code / w_lsb
    v_shift = min(max(LEAK_BITS, math.ceil(math.log2(ratio)) + GAIN_BITS), NOISE_BITS)
    gain = max(1, math.floor(2**v_shift / ratio))
    lsb = w_lsb / gain
    a_lsb = precision.threshold_reach_mv / 2 ** precision.register("threshold").bits
    if a_lsb >= lsb:
        a_load, a_shift = round(a_lsb / lsb), 0
    else:
        a_load, a_shift = 1, math.ceil(math.log2(lsb / a_lsb))
    return _Units(w_lsb, lsb, gain, v_shift, a_load * lsb / 2**a_shift, a_load, a_shift)


def _state(register: Register, *, signed: bool) -> StateFormat:
    return StateFormat(format=IntFormat(bits=register.bits, signed=signed), rounding=register.rounding)


def _integer_specs(config: DiehlCook, precision: Precision) -> tuple[NeuronSpec, ...]:
    v = _state(precision.register("membrane"), signed=True)
    leak = Leak(form="multiply", bits=LEAK_BITS)
    learning, *others = (spec.replace(v=v, leak=leak) for spec in _specs(config))
    a = _state(precision.register("threshold"), signed=False)
    return (learning.replace(a=a, leak_a=Leak(form="multiply", bits=SLOW_BITS)), *others)


def _integer_params(config: DiehlCook, u: _Units, theta: int, *, common: bool) -> dict[str, dict[str, Any]]:
    grid = {"v_load": 2**u.v_shift, "v_shift": u.v_shift}
    leak = round(math.exp(-config.dt_ms / config.tau_ms) * 2**LEAK_BITS)
    shared = {**grid, "reset": u.units(config.reset_mv), "leak": leak}
    if config.floor_mv is not None:
        shared["floor"] = u.units(config.floor_mv)
    adaptive = {"adapt": "per_neuron", "a_shift": u.a_shift, "a_load": u.a_load}
    adaptive["leak_a"] = round(_slow_leak(config) * 2**SLOW_BITS)
    inhibitory_leak = round(math.exp(-config.dt_ms / INHIBITORY["tau_ms"]) * 2**LEAK_BITS)
    return {
        "learning": {**shared, **adaptive, "theta": "base" if common else theta},
        "inferring": {**shared, "theta": "per_neuron"},
        "inhibitory": {
            **grid,
            "theta": math.ceil(INHIBITORY["theta"] / u.lsb),
            "reset": u.units(INHIBITORY["reset"]),
            "leak": inhibitory_leak,
        },
    }


def _integer(config: DiehlCook, precision: Precision) -> Numbers:
    u = _units(config, precision)
    learning, inferring, inhibitory = _integer_specs(config, precision)
    trace_max = 2 ** precision.register("trace").bits - 1
    trace_one = trace_max if config.trace == "set" else max(1, trace_max // ADDED_TRACES)
    theta = math.ceil(config.threshold_mv / u.lsb)
    params = _integer_params(config, u, theta, common=precision.common_threshold)
    return Numbers(
        real=False,
        learning=learning,
        inferring=inferring,
        inhibitory=inhibitory,
        params=params,
        gain=u.gain,
        inhibit=u.units(config.inhibit_mv),
        excite=u.units(config.excite_mv),
        theta=theta,
        adapt_unit=u.a_load,
        adapt=round(config.adapt_mv / u.a_lsb * 2**ADAPT_BITS),
        adapt_bits=ADAPT_BITS,
        **_common(config, precision, u),
        w_max=2 ** precision.register("weight").bits - 1,
        w_lsb=u.w_lsb,
        a_lsb=u.a_lsb,
        v_lsb=u.lsb * 2**u.v_shift,
        fine_bits=FINE_BITS,
        norm=round(config.norm * config.inputs / u.w_lsb),
        scale_bits=SCALE_BITS,
        trace_one=trace_one,
        trace_max=trace_max,
        trace_leak=round(math.exp(-config.dt_ms / config.tau_trace_ms) * 2**LEAK_BITS),
        trace_bits=LEAK_BITS,
        rates=_integer_rates(config, u, trace_one),
        roundings={role: precision.register(role).rounding for role in ("weight", "membrane", "threshold", "trace")},
    )


def _common(config: DiehlCook, precision: Precision, u: _Units) -> dict[str, int]:
    """What goes over to the common part of the thresholds where one is near the end of its register: a sixteenth."""
    if not precision.common_threshold:
        return {"carry": 0, "full": 0, "common_most": 0}
    codes = 2 ** precision.register("threshold").bits
    carry = max(1, codes // 16)
    room = precision.membrane_reach_mv - config.threshold_mv - precision.threshold_reach_mv
    most = int(room / u.a_lsb)
    if most >= 1 << COMMON_BITS:  # its word has 32 bits, and what decays it is a product in 64
        raise PlanError(
            f"precision: the common part of the thresholds may rise to {most:,} of their steps, its word holds "
            f"{(1 << COMMON_BITS) - 1:,}; give the threshold fewer bits, or raise threshold_reach_mv"
        )
    return {"carry": carry, "full": codes - 1 - carry, "common_most": most << COMMON_BITS}


def _integer_rates(config: DiehlCook, u: _Units, trace_one: int) -> Rates:
    """Learning rates in fine weight units per unit of trace; per unit of weight too, where a rule multiplies it.

    ``w_lsb`` cancels there: a change ``nu * x * w`` in weight units is ``nu * x`` times the code of the weight.
    """
    unit = 1.0 if rule_named(config.rule).by_weight else u.w_lsb
    fine = 2**FINE_BITS / (trace_one * unit)
    return Rates(
        post=round(config.nu_post * fine),
        pre=round(config.nu_pre * fine),
        w_max=round(config.w_max / u.w_lsb),
        target=round(config.target * trace_one),
    )

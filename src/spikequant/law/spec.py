"""The neuron spec: a frozen record of everything that decides what a neuron computes.

"LIF" alone is not a specification.  A spec names the order of the phases, the form and
rounding of each leak, the compare, the kind of reset, where a state is narrowed and
whether it saturates or wraps, widths, refractory time and adaptation.  A spec whose
formats are ``None`` is a *real* neuron: the same program over real numbers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntFormat
from spikequant.law.rounding import ROUNDINGS, Rounding

SPEC_VERSION = 1
MOST_LEVELS = 16

Phase = Literal[
    "decay_current",  # i <- leak(i)
    "add_current",  # i <- i + x + bias
    "narrow_current",  # i <- what its register can hold
    "narrow_input",  # x <- what the input register can hold
    "leak",  # v <- leak(v)
    "leak_unless_fired",  # v <- leak(v) where no spike was emitted in this step
    "integrate",  # v <- v + (i, or x + bias) + v_bias
    "bound",  # v <- the negative threshold acts
    "narrow",  # v <- what its register can hold
    "decay_threshold",  # a <- leak(a), on every adapt_every-th step
    "fire",  # s <- v >= theta (+ a), up to spikes_max times
    "reset",  # the reset, where s
    "reset_delayed",  # the reset, where the neuron fired in the step before
    "raise_threshold",  # a <- a + adapt_int where s
]
PHASES: tuple[Phase, ...] = get_args(Phase)
LeakForm = Literal["none", "multiply", "shift", "shift_forced", "two_shifts", "constant", "constant_signed"]
ResetKind = Literal["zero", "subtract", "value", "none"]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """How a state decays in one step.

    ``multiply``: ``leak_int * v / 2^bits``; ``shift``: ``v - (v >> leak_int)``;
    ``shift_forced``: the same with a decrement of at least one (Xylo); ``two_shifts``:
    ``v - (v >> leak_int) - (v >> leak2_int)``; ``constant``: ``leak_int`` toward zero;
    ``constant_signed``: ``v - leak_int``.

    ``rounding=None`` keeps the product exact in the fraction bits of the accumulator
    (DESIGN rule 2); a named rounding cuts it on the grid it stands on *before* the sum.
    """

    form: LeakForm = "none"
    bits: int = 0
    rounding: Rounding | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= 62:
            raise Unsupported(f"neuron spec: a leak of {self.bits} bits; expected 0 to 62")


@dataclass(frozen=True, kw_only=True)
class StateFormat:
    """Register of a state: its integers, its overflow, and the rounding when it is narrowed.

    ``levels``: 0, every integer of the format; ``n``: only the ``n`` of the parameters ``v_level0``
    (the lowest) and ``v_rise1 ...`` (from each to the next), of which a state takes the highest whose
    ``v_cut`` the rounded code reaches.
    """

    format: IntFormat
    overflow: Literal["saturate", "wrap"] = "saturate"
    rounding: Rounding = "floor"
    levels: int = 0

    @property
    def bits(self) -> int:
        """Bits that store the state: of the format, or of the number of its level."""
        return self.format.bits if not self.levels else max(1, (self.levels - 1).bit_length())


@dataclass(frozen=True, kw_only=True)
class NeuronSpec:
    """What a neuron computes in one step; `step` in `law/neurons.py` executes it.

    ``fraction_bits``: the accumulator's LSB is ``s * 2^-fraction_bits``.  Formats of
    ``None`` mean real numbers.  ``compare`` is ``>=`` in every integer network; a real
    reading may say ``>``.  ``output`` is what leaves the neuron: its spikes, or its
    stored membrane (a non-spiking readout).
    """

    order: tuple[Phase, ...]
    leak: Leak = Leak()
    leak_i: Leak | None = None
    leak_a: Leak | None = None
    reset: ResetKind = "none"
    compare: Literal[">=", ">"] = ">="
    lower: Literal["none", "floor", "zero"] = "none"
    spikes_max: int = 1
    refractory: int = 0
    refractory_mode: Literal["ignore_input", "hold_zero"] = "ignore_input"
    adapt_every: int = 1
    adapt_in_reset: bool = False
    output: Literal["spike", "state"] = "spike"
    fraction_bits: int = 0
    v: StateFormat | None = None
    i: StateFormat | None = None
    a: StateFormat | None = None
    x: StateFormat | None = None
    version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        _check_names(self)
        _check_phases(self)
        _check_counts(self)

    @property
    def has_current(self) -> bool:
        """Whether the synaptic current is a state of its own."""
        return "add_current" in self.order

    @property
    def has_adaptation(self) -> bool:
        """Whether the threshold is a state."""
        return self.leak_a is not None

    @property
    def stores_spike(self) -> bool:
        """Whether the emitted spike is kept for the next step (delayed reset)."""
        return "reset_delayed" in self.order

    @property
    def is_real(self) -> bool:
        """Whether the membrane is a real number."""
        return self.v is None

    def state_formats(self) -> dict[str, IntFormat | None]:
        """The stored states by name, in the order in which they are saved."""
        states: dict[str, IntFormat | None] = {"v": self.v.format if self.v else None}
        if self.has_current:
            states["i"] = self.i.format if self.i else None
        if self.has_adaptation:
            states["a"] = self.a.format if self.a else None
        if self.stores_spike:
            states["s"] = IntFormat(bits=max(1, self.spikes_max.bit_length()), signed=False)
        if self.refractory:
            states["r"] = IntFormat(bits=self.refractory.bit_length(), signed=False)
        return states

    def replace(self, **changes: Any) -> NeuronSpec:
        """A copy with some fields changed; checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record; `from_dict` reads it back."""
        record = dataclasses.asdict(self)
        for state in ("v", "i", "a", "x"):
            if record[state] is not None and not record[state]["levels"]:
                del record[state]["levels"]  # later than the first version: written only where it says something
        return record

    @staticmethod
    def from_dict(record: dict[str, Any]) -> NeuronSpec:
        """Read `to_dict` back; an unknown field or version raises `Unsupported`."""
        names = {f.name for f in dataclasses.fields(NeuronSpec)}
        unknown = sorted(set(record) - names)
        if unknown:
            raise Unsupported(f"neuron spec: unknown field {unknown[0]!r}; expected some of {', '.join(sorted(names))}")
        read_version(record)
        missing = sorted(names - set(record))
        if missing:
            raise Unsupported(f"neuron spec: the field {missing[0]!r} is missing")
        fields = dict(record)
        fields["order"] = tuple(fields["order"])
        for name in ("leak", "leak_i", "leak_a"):
            fields[name] = Leak(**fields[name]) if fields.get(name) is not None else None
        for name in ("v", "i", "a", "x"):
            register = fields.get(name)
            if register is not None:
                fields[name] = StateFormat(**{**register, "format": IntFormat(**register["format"])})
        return NeuronSpec(**fields)


def read_version(record: dict[str, Any]) -> None:
    """Refuse a record of another version."""
    if record.get("version") != SPEC_VERSION:
        raise Unsupported(f"neuron spec: version {record.get('version')!r}, this release reads {SPEC_VERSION}")


def _choices(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation)


def _check_names(spec: NeuronSpec) -> None:
    for phase in spec.order:
        if phase not in PHASES:
            raise Unsupported(f"neuron spec: unknown phase {phase!r}; expected some of {', '.join(PHASES)}")
    closed = {
        "reset": (spec.reset, _choices(ResetKind)),
        "compare": (spec.compare, (">=", ">")),
        "lower": (spec.lower, ("none", "floor", "zero")),
        "refractory_mode": (spec.refractory_mode, ("ignore_input", "hold_zero")),
        "output": (spec.output, ("spike", "state")),
    }
    for leak_name in ("leak", "leak_i", "leak_a"):
        leak = getattr(spec, leak_name)
        if leak is not None:
            closed[f"{leak_name}.form"] = (leak.form, _choices(LeakForm))
            if leak.rounding is not None:
                closed[f"{leak_name}.rounding"] = (leak.rounding, ROUNDINGS[:-1])
    for name, (given, allowed) in closed.items():
        if given not in allowed:
            raise Unsupported(f"neuron spec: {name} = {given!r}; expected one of {', '.join(allowed)}")
    for state in ("v", "i", "a", "x"):
        register = getattr(spec, state)
        if register is not None and (
            register.rounding not in ROUNDINGS or register.overflow not in ("saturate", "wrap")
        ):
            raise Unsupported(f"neuron spec: {state} rounds {register.rounding!r} and overflows {register.overflow!r}")
        if register is not None and register.levels:
            _check_levels(spec, state, register)


def _check_levels(spec: NeuronSpec, state: str, register: StateFormat) -> None:
    fits = state == "v" and register.overflow == "saturate" and spec.spikes_max == 1
    if not fits or not 2 <= register.levels <= MOST_LEVELS:
        raise Unsupported(
            f"neuron spec: {state} with {register.levels} levels; expected 2 to {MOST_LEVELS}, of a membrane that"
            " saturates, of a neuron that fires at most once in a step"
        )


def _check_phases(spec: NeuronSpec) -> None:
    order = spec.order
    needs = {"integrate": True, "fire": spec.output == "spike"}
    for phase, needed in needs.items():
        if needed and phase not in order:
            raise Unsupported(f"neuron spec: the order {order} lacks the phase {phase!r}")
    repeated = [p for p in set(order) if order.count(p) > 1 and p not in ("narrow", "bound")]
    if repeated:
        raise Unsupported(f"neuron spec: the order names {repeated[0]!r} more than once")
    if ("decay_current" in order) != (spec.leak_i is not None) or ("decay_current" in order and not spec.has_current):
        raise Unsupported("neuron spec: leak_i, 'decay_current' and 'add_current' belong together; name all or none")
    if ("raise_threshold" in order) != spec.has_adaptation or ("decay_threshold" in order and not spec.has_adaptation):
        raise Unsupported("neuron spec: leak_a and the phase 'raise_threshold' belong together; name both or neither")
    for phase in ("reset", "leak_unless_fired", "raise_threshold", "narrow_current"):
        first = "add_current" if phase == "narrow_current" else "fire"
        if phase in order and (first not in order or order.index(phase) < order.index(first)):
            raise Unsupported(f"neuron spec: the phase {phase!r} needs {first!r} before it; the order is {order}")
    resets = [p for p in ("reset", "reset_delayed") if p in order]
    repeats = spec.spikes_max > 1
    if repeats and (resets or spec.reset != "subtract"):
        raise Unsupported(
            "neuron spec: several spikes a step subtract inside 'fire'; set reset='subtract', no reset phase"
        )
    if not repeats and len(resets) != (0 if spec.reset == "none" else 1):
        raise Unsupported(
            f"neuron spec: reset={spec.reset!r} with the reset phases {resets}; exactly one belongs to a reset"
        )
    if (spec.lower != "none") != ("bound" in order):
        raise Unsupported(f"neuron spec: lower={spec.lower!r} and the phase 'bound' belong together")
    if spec.x is not None and "narrow_input" not in order:
        raise Unsupported("neuron spec: the register x needs the phase 'narrow_input'")
    if spec.output == "state" and (spec.refractory or spec.stores_spike):
        raise Unsupported("neuron spec: output='state' stores no spike; drop refractory and 'reset_delayed'")
    if spec.adapt_in_reset and not spec.has_adaptation:
        raise Unsupported("neuron spec: adapt_in_reset without an adaptive threshold; set leak_a and 'raise_threshold'")


def _check_counts(spec: NeuronSpec) -> None:
    if not 0 <= spec.fraction_bits <= 32:
        raise Unsupported(f"neuron spec: fraction_bits = {spec.fraction_bits}; expected 0 to 32")
    if not 1 <= spec.spikes_max <= 31:
        raise Unsupported(f"neuron spec: spikes_max = {spec.spikes_max}; expected 1 to 31")
    if not 0 <= spec.refractory <= 2**16 or spec.adapt_every < 1:
        raise Unsupported(f"neuron spec: refractory {spec.refractory} or adapt_every {spec.adapt_every} out of range")


LEVEL_PARAMS = ("v_level0", *(f"v_{what}{k}" for k in range(1, MOST_LEVELS) for what in ("cut", "rise")))
KNOWN_PARAMS = frozenset(
    {"theta", "reset", "floor", "bias", "v_bias", "adapt", "leak", "leak2", "leak_i", "leak_i2", "leak_a", "leak_a2"}
    | {f"{state}_{what}" for state in "viax" for what in ("load", "shift", "mul", "decay")}
    | set(LEVEL_PARAMS)
)
"""Every parameter that `step` may read."""


def needed_params(spec: NeuronSpec) -> tuple[str, ...]:
    """The parameters without which `step` cannot run this spec."""
    names = ["v_load", "v_shift"]
    names += ["theta"] * (spec.output == "spike") + ["reset"] * (spec.reset in ("subtract", "value"))
    names += ["floor"] * (spec.lower != "none") + ["x_shift", "x_load"] * (spec.x is not None)
    names += ["i_load", "i_shift"] * spec.has_current + ["a_shift", "adapt"] * spec.has_adaptation
    for key, leak in (("leak", spec.leak), ("leak_i", spec.leak_i), ("leak_a", spec.leak_a)):
        if leak is not None:
            names += [key] * (leak.form != "none") + [f"{key}2"] * (leak.form == "two_shifts")
    if spec.v is not None and spec.v.levels:
        names += LEVEL_PARAMS[: 2 * spec.v.levels - 1]
    return tuple(names)

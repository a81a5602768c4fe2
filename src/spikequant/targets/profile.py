"""What a hardware profile says: frozen records that a check reads, a page prints and a file names.

A profile is a set of *rules* for the integers of a network (which neuron specs, registers, weights and parameters the
chip has) and a set of *limits* (how many of them).  It computes nothing; `check.py` compares a network with it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from spikequant.law.formats import IntFormat
from spikequant.law.rounding import ROUNDINGS, Rounding
from spikequant.law.spec import LeakForm, Phase, ResetKind, StateFormat

Promise = Literal["equal", "limits"]
Place = Literal["any", "hidden", "output"]
EVERY_RESET: tuple[ResetKind, ...] = ("zero", "subtract", "value", "none")


@dataclass(frozen=True, kw_only=True)
class StateRule:
    """A register of the chip: its width (``exactly`` or at most), sign, overflow and roundings.

    ``counts_lsb``: one code is one accumulator LSB, so nothing is rounded when it is stored.

    >>> StateRule(bits=16).misfits(StateFormat(format=IntFormat(bits=20)))
    ['20 bits, at most 16']
    """

    bits: int
    exactly: bool = False
    signed: tuple[bool, ...] = (True, False)
    narrow: tuple[bool, ...] = (True, False)
    overflow: tuple[str, ...] = ("saturate", "wrap")
    roundings: tuple[Rounding, ...] = ROUNDINGS
    counts_lsb: bool = False

    def misfits(self, state: StateFormat) -> list[str]:
        """How a register of a network differs from this one."""
        found, fmt = [], state.format
        if fmt.bits > self.bits or (self.exactly and fmt.bits != self.bits):
            found.append(f"{fmt.bits} bits, {'exactly' if self.exactly else 'at most'} {self.bits}")
        if fmt.signed not in self.signed:
            found.append(f"{'signed' if fmt.signed else 'unsigned'}, the chip's is not")
        if fmt.narrow not in self.narrow:
            found.append(
                "symmetric limits, the chip's are not"
                if fmt.narrow
                else "a lowest value of -2^(bits-1), the chip's is one more"
            )
        if state.overflow not in self.overflow:
            found.append(f"{state.overflow}s, the chip's {' or '.join(self.overflow)}s")
        if not self.counts_lsb and state.rounding not in self.roundings:
            found.append(f"rounds {state.rounding}, the chip {' or '.join(self.roundings)}")
        return found


@dataclass(frozen=True, kw_only=True)
class LeakRule:
    """How a state of the chip decays; `low` and `high` bound the stored integer.

    ``roundings`` of None: exact, rounded with the store (the law's default).
    """

    forms: tuple[LeakForm, ...]
    bits: tuple[int, int] = (0, 24)
    roundings: tuple[Rounding | None, ...] = (None, *ROUNDINGS[:-1])
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, kw_only=True)
class NeuronRule:
    """One kind of neuron that the chip has.  None: whatever the law can express.

    ``place``: hidden neurons, output neurons, or both.  ``input_bits``: the sum of a step must be proven to fit them.
    """

    name: str
    order: tuple[Phase, ...] | None = None
    leak: LeakRule | None = None
    leak_i: LeakRule | None = None
    resets: tuple[ResetKind, ...] = EVERY_RESET
    spikes_max: int = 31
    outputs: tuple[str, ...] = ("spike", "state")
    adapts: bool = False
    refractory: int = 0
    v: StateRule | None = None
    i: StateRule | None = None
    input_bits: int | None = None
    place: Place = "any"


@dataclass(frozen=True, kw_only=True)
class NumberRule:
    """Which integers a parameter takes: ``offset + unit * m * 2^e`` with ``low <= m <= high``, ``0 <= e <= shift``.

    ``per_layer``: one value for all neurons of a layer.

    >>> NumberRule(low=0, high=7, unit=64, offset=1).holds(449), NumberRule(low=0, high=7, unit=64, offset=1).holds(448)
    (True, False)
    """

    low: int
    high: int
    unit: int = 1
    offset: int = 0
    shift: int = 0
    per_layer: bool = False

    def holds(self, value: int) -> bool:
        """Whether the chip can store `value`."""
        rest = value - self.offset
        if rest % self.unit:
            return False
        mantissa = rest // self.unit
        for _ in range(self.shift):
            if self.low <= mantissa <= self.high or mantissa % 2:
                break
            mantissa //= 2
        return self.low <= mantissa <= self.high

    def __str__(self) -> str:
        step = f" in steps of {self.unit}" if self.unit > 1 else ""
        shifted = f", times 2^0 to 2^{self.shift}" if self.shift else ""
        behind = f", plus {self.offset}" if self.offset else ""
        return f"{self.low * self.unit} to {self.high * self.unit}{step}{shifted}{behind}"


@dataclass(frozen=True, kw_only=True)
class WeightRule:
    """Which synaptic weights the chip stores.

    A weight as the neuron sees it is ``code * gain`` accumulator LSBs.  On the chip it is ``unit * 2^e * w`` with one
    exponent ``0 <= e <= shift`` per layer; ``mixed`` holds `w` where a layer has weights of both signs, ``one_sign``
    where it has not (None: the same).  ``unit`` of None: gains are free, `w` is the code.  ``shift_shared``: one
    exponent for all synapses of the input, one for those between hidden neurons, one for those of the outputs.
    """

    mixed: IntFormat
    one_sign: IntFormat | None = None
    unit: int | None = None
    shift: int = 0
    shift_shared: bool = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most of each thing that the chip takes; None where there is no limit (or none is known).

    Attributes:
        nodes: kinds of nodes that the chip can place (a join by its own kind: ``concat``); None for all.
        input_codes: largest input of one channel in one step.
        inputs: input channels.
        neurons: neurons that are not outputs.
        outputs: neurons (or classes) of the last layer.
        layers: layers of neurons.
        fan_in: synapses into one neuron.
        fan_out: layers that read one layer.
        kernel: side of a convolution's window.
        channels: of a layer.
        side: height or width of a layer's map.
        strides: of convolutions.
        pools: windows of sum pooling.
        delay: steps on an edge.
        layer_delay: steps that a spike needs into the next layer of neurons, whatever the network says.
        accumulator: proven bits of every intermediate.
        parameter: bits of thresholds, resets and biases.
    """

    nodes: tuple[str, ...] | None = None
    input_codes: int | None = None
    inputs: int | None = None
    neurons: int | None = None
    outputs: int | None = None
    layers: int | None = None
    fan_in: int | None = None
    fan_out: int | None = None
    kernel: int | None = None
    channels: int | None = None
    side: int | None = None
    strides: tuple[int, ...] | None = None
    pools: tuple[int, ...] | None = None
    delay: int | None = None
    layer_delay: int = 0
    accumulator: int | None = None
    parameter: int | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """A versioned hardware profile.

    Attributes:
        name, version: ``loihi-cuba``, 1; together they stand in a network as ``loihi-cuba/1``.
        title: what it is, in one line.
        promise: ``equal``: a network that passes the check does on the chip what the golden model does, step by step,
            as far as the sources describe the chip.  ``limits``: sizes only ("graded faithful"); equality is not
            promised.
        sources: where the rules come from.
        neurons: the neurons that it has; a layer must fit one of them.
        weights: what a synapse stores.
        numbers: rules of single parameters (``theta``, ``v_bias``, ...) of the law.
        limits: how many of what.
        forbidden: parameters of the law that the chip has no place for, with the reason.
        equal_numbers: pairs of parameters that the chip stores once.
        input_as_bias: the input may drive neurons without weights, as a bias (``v_bias``).
        each_event_saturates: bits of the register that saturates on every single synaptic event.  The law cannot
            say that, so it must be proven that no order of delivery ever saturates (`order_free.py`).
        notes: what a reader must know besides.
    """

    name: str
    version: int
    title: str
    promise: Promise
    sources: tuple[str, ...]
    neurons: tuple[NeuronRule, ...]
    weights: WeightRule | None = None
    numbers: dict[str, NumberRule] = field(default_factory=dict)
    limits: Limits = Limits()
    forbidden: dict[str, str] = field(default_factory=dict)
    equal_numbers: tuple[tuple[str, str], ...] = ()
    input_as_bias: bool = False
    each_event_saturates: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """Name and version, as a network carries them."""
        return f"{self.name}/{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, every field."""
        return {"tag": self.tag, **asdict(self)}

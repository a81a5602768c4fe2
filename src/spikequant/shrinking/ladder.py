"""The ladder: which bits are tried, from high to low, and the plan that a rung means for a network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from spikequant.law.errors import PlanError
from spikequant.nn import QuantizedNeuron, Synapse
from spikequant.nn.copying import copied
from spikequant.plan import Plan, literally
from spikequant.quantize import quantize_

Scheme = Literal["ptq", "qat"]
WEIGHT_BITS = (8, 6, 4, 3, 2, 1)
MEMBRANE_BITS = (12, 8, 6, 4, 3, 2)
INPUT_BITS = 8
LEAK_BITS = 8
READOUT_BITS = 8
"""A readout membrane has at least these: a handful of neurons, and all classes are read off them."""


@dataclass(frozen=True)
class Rung:
    """Weight bits x membrane bits (U: the membrane potential).

    >>> print(Rung(4, 8))
    W4/U8
    """

    weight_bits: int
    membrane_bits: int

    def __str__(self) -> str:
        return f"W{self.weight_bits}/U{self.membrane_bits}"

    def is_within(self, other: Rung) -> bool:
        """Whether it has at most the bits of `other` in both roles."""
        return self.weight_bits <= other.weight_bits and self.membrane_bits <= other.membrane_bits


@dataclass(frozen=True)
class Ladder:
    """The bits that are tried, each from high to low.

    >>> ladder = Ladder()
    >>> print(ladder.top, ladder.below(Rung(4, 8), "weight"), ladder.below(Rung(4, 8), "both"))
    W8/U12 W3/U8 W3/U6
    >>> ladder.below(Rung(1, 8), "both") is None
    True

    Raises:
        PlanError: no bits, not from high to low, or outside 1 to 16 (weights) and 2 to 24 (membranes).
    """

    weight_bits: tuple[int, ...] = WEIGHT_BITS
    membrane_bits: tuple[int, ...] = MEMBRANE_BITS

    def __post_init__(self) -> None:
        for name, levels, least, most in (
            ("weight_bits", self.weight_bits, 1, 16),
            ("membrane_bits", self.membrane_bits, 2, 24),
        ):
            falls = all(a > b for a, b in itertools.pairwise(levels))
            if not levels or not falls or not least <= levels[-1] <= levels[0] <= most:
                raise PlanError(f"shrink: {name} = {levels}; expected numbers from high to low, {least} to {most}")

    @property
    def top(self) -> Rung:
        """The rung with the most bits."""
        return Rung(self.weight_bits[0], self.membrane_bits[0])

    def below(self, rung: Rung, what: Literal["weight", "membrane", "both"]) -> Rung | None:
        """The next rung with fewer bits of one role, or of both; None at the end of the ladder."""
        weight = _next(self.weight_bits, rung.weight_bits) if what != "membrane" else rung.weight_bits
        membrane = _next(self.membrane_bits, rung.membrane_bits) if what != "weight" else rung.membrane_bits
        return None if weight is None or membrane is None else Rung(weight, membrane)


def _next(levels: tuple[int, ...], now: int) -> int | None:
    return next((bits for bits in levels if bits < now), None)


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What a network has that a plan can speak of: paths of its layers by role.

    ``feeds`` names the neuron layer behind each weighted layer (a readout without a neuron has none), ``weights``
    counts the weights of all.
    """

    synapses: tuple[str, ...]
    reads_input: tuple[str, ...]
    neurons: tuple[str, ...]
    readouts: tuple[str, ...]
    currents: tuple[str, ...]
    leaks: tuple[str, ...]
    feeds: Mapping[str, str]
    weights: int


def roles_of(model: nn.Module, example_input: Tensor) -> Roles:
    """The roles of a network, off a copy that is quantized once.

    Raises:
        SpikequantError: the network has no integer form, as `quantize_` says it.
    """
    probe = copied(model)
    quantize_(probe, Plan.uniform(weight_bits=8, membrane_bits=8), example_input, quiet=True)
    synapses = {p: m for p, m in probe.named_modules() if isinstance(m, Synapse)}
    neurons = {p: m for p, m in probe.named_modules() if isinstance(m, QuantizedNeuron)}
    names = {id(m): p for p, m in neurons.items()}
    return Roles(
        synapses=tuple(synapses),
        reads_input=tuple(p for p, m in synapses.items() if m.input_format is not None),
        neurons=tuple(p for p, m in neurons.items() if m.real_spec.output == "spike"),
        readouts=tuple(p for p, m in neurons.items() if m.real_spec.output == "state"),
        currents=tuple(p for p, m in neurons.items() if m.real_spec.has_current),
        leaks=tuple(p for p, m in neurons.items() if m.real_spec.leak.form == "multiply"),
        feeds={p: names[id(m.link.branch.neuron)] for p, m in synapses.items() if m.link is not None},
        weights=sum(m.weight.numel() for m in synapses.values()),
    )


def plan_for(
    roles: Roles,
    rung: Rung,
    scheme: Scheme,
    *,
    relief: Mapping[str, int] | None = None,
    signed: bool = True,
    seed: int = 0,
) -> Plan:
    """The plan of a rung, one rule per layer, every role that the layer has named.

    Weights: `Uniform` with clipping by squared error after training, `LSQ` in training,
    `Binary` at one bit.  Membranes (and currents) have the rung's bits; a readout membrane
    is signed in any case.  The first layer reads 8-bit codes of a real input, leaks are
    ``k / 2^8`` or shorter.  Thresholds, resets and biases are integers in the
    accumulator's LSB, as `freeze` makes them.

    Args:
        roles: of the network.
        rung: the bits.
        scheme: ``"ptq"`` or ``"qat"``.
        relief: other bits for the weights or the membrane of single layers.
        signed: False drops the sign of spiking membranes, which doubles their fineness.
        seed: of the noise of stochastic rounding.
    """
    given = dict(relief or {})
    rules: list[dict[str, Any]] = []
    for path in roles.synapses:
        rule: dict[str, Any] = {"match": literally(path), "weight": _weight(given.get(path, rung.weight_bits), scheme)}
        if path in roles.reads_input:
            rule["input"] = {"bits": INPUT_BITS}
        rules.append(rule)
    for path in (*roles.neurons, *roles.readouts):
        least = READOUT_BITS if path in roles.readouts else 1
        bits = max(least, given.get(path, rung.membrane_bits))
        rule = {"match": literally(path), "membrane": {"bits": bits, "signed": signed or path in roles.readouts}}
        if path in roles.currents:
            rule["current"] = {"bits": bits}
        if path in roles.leaks:
            rule["leak"] = {"bits": LEAK_BITS}
        rules.append(rule)
    return Plan.from_dict({"rules": rules, "seed": seed})


def _weight(bits: int, scheme: Scheme) -> dict[str, Any]:
    if bits == 1:
        return {"quantizer": "binary"}
    if scheme == "qat":
        return {"quantizer": "lsq", "bits": bits}
    return {"quantizer": "uniform", "bits": bits, "clipping": "mse"}

"""What a network needs to hold: every parameter and every state, in bits.

``bits = sum over roles of count * bits``.  A float network holds 32 bits of each, its refractory counters included.
While it learns, it holds weights, membranes, counters, adaptive thresholds, both kinds of traces, and of every neuron
whether it has fired in this image (its weights are normalised behind it); to infer it needs neither traces nor these,
and one threshold per neuron in place of the adaptive part.  What thresholds have in common is one word, where a
precision says so.  Spikes that inhibit one step later are states, too: one bit each, or the number of the one neuron
that may send.  Flags and spikes are bits in a float network as well.

Not counted: the image, which is the input; the noise, which is a function of its position; and the rise of a threshold,
which this program draws behind a neuron's last spike and one that draws at the next spike does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from spikequant.learn.config import DiehlCook, Precision

FLOAT_BITS = 32
CONSTANTS = 8
"""Leaks, threshold, reset, inhibition, rates: one 32-bit word each, shared by all neurons."""


@dataclass(frozen=True)
class Memory:
    """Bits by what they hold."""

    parts: dict[str, int]

    @property
    def bits(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    @property
    def bytes(self) -> float:
        """``bits / 8``."""
        return self.bits / 8


def memory(config: DiehlCook, precision: Precision, *, learns: bool = True) -> Memory:
    """Memory of `config` under `precision`.

    >>> from spikequant.learn.config import Register
    >>> config = DiehlCook(inputs=784, neurons=400)
    >>> real = memory(config, Precision())
    >>> real.parts["weights"], real.bits
    (10035200, 10112153)
    >>> four = Register(4, "SR")
    >>> small = memory(config, Precision(weight=four, membrane=four, threshold=four, trace=four))
    >>> round(real.bits / small.bits, 2)
    8.0
    """

    def bits(role: str) -> int:
        register = getattr(precision, role)
        return FLOAT_BITS if register is None else int(register.bits)

    def counter(most: int) -> int:
        return FLOAT_BITS if precision.is_real else most.bit_length()

    n, inputs = config.neurons, config.inputs
    parts = {
        "weights": inputs * n * bits("weight"),
        "membranes": n * bits("membrane"),
        "refractory counters": n * counter(config.refractory),
        "adaptive thresholds": n * bits("threshold"),
        "constants": CONSTANTS * FLOAT_BITS,
        "spikes on their way": n.bit_length() if learns and config.one_spike else n,
    }
    if precision.common_threshold:
        parts["common part of the thresholds"] = FLOAT_BITS
    if config.inhibition == "layer":
        parts["inhibitory membranes"] = n * bits("membrane")
        parts["inhibitory counters"] = n * counter(2)
    if learns:
        parts["traces"] = (inputs + n) * bits("trace")
        parts["fired in this image"] = n
    return Memory(parts)


def saving(config: DiehlCook, precision: Precision, *, learns: bool = True) -> float:
    """How many times less than the float network."""
    return memory(config, Precision(), learns=learns).bits / memory(config, precision, learns=learns).bits

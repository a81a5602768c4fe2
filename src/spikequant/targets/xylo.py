"""``xylo/1``: SynSense Xylo v2 (SYNS61201), as its published simulator computes it.

    i <- i + w 2^shift                      at every event, saturating at 16 bits
    i <- i - max(1, i >> dash_syn)          in the same step (toward zero where i >> dash is 0)
    v <- v - max(1, v >> dash_mem) + i + bias, saturating at 16 bits
    while v >= thr and fewer than 31 spikes (outputs: 1): fire, v <- v - thr

Saturation at every event depends on the order of delivery, which no spec can say.  A network is accepted only where
`arrivals.py` proves, for every order of delivery, that no register saturates before the store.
"""

from __future__ import annotations

from dataclasses import replace

from spikequant.law.formats import IntFormat
from spikequant.law.spec import Phase
from spikequant.targets.profile import LeakRule, Limits, NeuronRule, NumberRule, StateRule, Target, WeightRule

STATE_BITS = 16
MOST_DASH = 15
SPIKES_HIDDEN = 31
SPIKES_INPUT = 15
MOST_SHIFT = 7

_DASH = LeakRule(forms=("shift_forced",), roundings=(None, "floor"), low=0, high=MOST_DASH)
_STATE = StateRule(
    bits=STATE_BITS, exactly=True, signed=(True,), narrow=(False,), overflow=("saturate",), counts_lsb=True
)
_ORDER: tuple[Phase, ...] = ("add_current", "decay_current", "leak", "integrate", "narrow", "fire")
_HIDDEN = NeuronRule(
    name="hidden", order=_ORDER,
    leak=_DASH, leak_i=_DASH, resets=("subtract",), spikes_max=SPIKES_HIDDEN, outputs=("spike",),
    v=_STATE, i=_STATE, place="hidden",
)  # fmt: skip
XYLO = Target(
    name="xylo",
    version=1,
    title="SynSense Xylo v2 (SYNS61201): 16-bit states, decays by shifts of at least 1, up to 31 spikes a step",
    promise="equal",
    sources=(
        "xylosim 0.1.3: src/v2/cpp/XyloIAFNeuron.cpp, XyloLayer.cpp",
        "rockpool 3.1.0: devices/xylo/syns61201 (sizes)",
    ),
    neurons=(
        _HIDDEN,
        replace(_HIDDEN, name="output", order=(*_ORDER, "reset"), spikes_max=1, place="output"),
    ),
    weights=WeightRule(mixed=IntFormat(bits=8), unit=1, shift=MOST_SHIFT, shift_shared=True),
    numbers={
        "theta": NumberRule(low=1, high=2**15 - 1),
        "reset": NumberRule(low=1, high=2**15 - 1),
        "v_bias": NumberRule(low=-(2**15), high=2**15 - 1),
        "leak": NumberRule(low=0, high=MOST_DASH),
        "leak_i": NumberRule(low=0, high=MOST_DASH),
    },
    limits=Limits(
        nodes=("input", "synapse", "neuron", "reshape"),
        input_codes=SPIKES_INPUT,
        inputs=16,
        neurons=1000,
        outputs=8,
        delay=1,
        layer_delay=1,
        kernel=0,
    ),
    forbidden={
        "bias": "the chip adds its bias to the membrane, behind the current; take bias=False in the layer in front",
    },
    equal_numbers=(("theta", "reset"),),
    each_event_saturates=STATE_BITS,
    notes=(
        "every order of delivery is covered by the proof; a network that could saturate is refused",
        "a spike of a hidden neuron arrives one step later; input spikes arrive at once",
        "input spikes reach hidden neurons only; a neuron between input and outputs is needed",
        "one synapse per neuron: the second one and aliases are not used",
        "a decay of 0 clears its state at once, so a neuron needs a synaptic time constant (CubaLIF)",
    ),
)

"""``loihi-cuba/1``: the current-based LIF neuron of Intel's Loihi, as its public bit-accurate models compute it.

    u <- trunc0(u * (4096 - (du + 1)) / 4096) + 2^6 * sum w s          24 bits, wraps
    v <- trunc0(v * (4096 - dv) / 4096) + u + bias                     saturates at +-(2^23 - 1)
    fire where v > 2^6 * vth; v <- 0 there

In a spec: leaks ``multiply`` of 12 bits that round ``toward_zero`` before the sum; ``theta = 64 vth + 1``, because an
integer network has one comparator (``>=``).  A LIF neuron without a current is the same with ``du = 4095``: its current
is what arrives in the step, and the 24 bits of the wrap must be proven.
"""

from __future__ import annotations

from spikequant.law.formats import IntFormat
from spikequant.targets.profile import LeakRule, Limits, NeuronRule, NumberRule, StateRule, Target, WeightRule

SHIFT = 6
STATE_BITS = 24
DECAY_BITS = 12
UNIT = 2**SHIFT

_LEAK = LeakRule(forms=("multiply",), bits=(12, 12), roundings=("toward_zero",), low=1, high=4096)
_LEAK_I = LeakRule(forms=("multiply",), bits=(12, 12), roundings=("toward_zero",), low=0, high=4095)
_V = StateRule(bits=24, exactly=True, signed=(True,), narrow=(True,), overflow=("saturate",), counts_lsb=True)
_U = StateRule(bits=24, exactly=True, signed=(True,), narrow=(False,), overflow=("wrap",), counts_lsb=True)
LOIHI_CUBA = Target(
    name="loihi-cuba",
    version=1,
    title="Loihi 1 and 2, CUBA LIF: 24-bit current that wraps, 24-bit membrane that saturates, 12-bit decays",
    promise="equal",
    sources=(
        "lava b6822fb (2025-07): src/lava/proc/lif/models.py, proc/dense/models.py (bit-accurate CPU models)",
        "nengo-loihi: nengo_loihi/builder/discretize.py (decay_int), emulator/interface.py; brian2_loihi",
        "Davies et al. 2018, Loihi: a neuromorphic manycore processor with on-chip learning, IEEE Micro 38(1)",
    ),
    neurons=(
        NeuronRule(
            name="cuba",
            order=("decay_current", "add_current", "narrow_current", "leak", "integrate", "narrow", "fire", "reset"),
            leak=_LEAK, leak_i=_LEAK_I, resets=("zero",), spikes_max=1, outputs=("spike",), v=_V, i=_U,
        ),
        NeuronRule(
            name="lif", order=("leak", "integrate", "narrow", "fire", "reset"),
            leak=_LEAK, resets=("zero",), spikes_max=1, outputs=("spike",), v=_V, input_bits=STATE_BITS,
        ),
    ),
    weights=WeightRule(
        mixed=IntFormat(bits=9, multiple_of=2), one_sign=IntFormat(bits=9, narrow=True), unit=UNIT, shift=7
    ),
    numbers={
        "theta": NumberRule(low=0, high=2**17 - 1, unit=UNIT, offset=1, per_layer=True),
        "leak": NumberRule(low=1, high=4096, per_layer=True),
        "leak_i": NumberRule(low=0, high=4095, per_layer=True),
        "v_bias": NumberRule(low=-(2**12), high=2**12 - 1, shift=7),
    },
    limits=Limits(
        nodes=("input", "synapse", "neuron", "reshape", "concat"),
        input_codes=1,
        neurons=128 * 1024,
        fan_in=4096,
        delay=62,
        layer_delay=1,
    ),
    forbidden={
        "bias": "the chip adds its bias to the membrane, behind the current; a bias of the synapses belongs to a "
        "neuron without a current, or to bias=False",
    },
    input_as_bias=True,
    notes=(
        "a spike reaches the next layer one step later; the network counts from the first spike that can arrive "
        "(lava's reset_interval), so a layer of depth k is compared k steps later",
        "u is 64 accumulator LSBs per unit of weight; weights of both signs are even (-256 to 254), of one sign any up "
        "to 255 in magnitude",
        "one decay and one threshold per layer, as lava's processes have them",
        "lava leaves a current of exactly +2^23 as it is, where 24 bits wrap to -2^23",
        "not modelled: refractory time, synaptic traces, noise, learning",
    ),
)  # fmt: skip

"""``mcu-int8/1``: a 32-bit microcontroller with int8 weights and no 64-bit arithmetic.

The widths are those for which 32-bit cores have instructions and CMSIS-NN has kernels: weights of int8, sums in int32.
States take int16, because membranes are read and written at every step and RAM is what such a part lacks.
"""

from __future__ import annotations

from dataclasses import replace

from spikequant.law.formats import IntFormat
from spikequant.targets.profile import Limits, NeuronRule, StateRule, Target, WeightRule
from spikequant.targets.reference import ANY_LEAK

LEAK = replace(ANY_LEAK, bits=(0, 16))
MCU_INT8 = Target(
    name="mcu-int8",
    version=1,
    title="a 32-bit microcontroller: int8 weights, int16 states, int32 sums",
    promise="equal",
    sources=(
        "spikequant's own profile",
        "CMSIS-NN: int8 weights summed in int32 (README, Include/arm_nnfunctions.h)",
        "ARMv6-M and ARMv7-M: 32-bit registers, no 64-bit shift or compare",
    ),
    neurons=(
        NeuronRule(
            name="any", leak=LEAK, leak_i=LEAK, adapts=True, refractory=255, v=StateRule(bits=16), i=StateRule(bits=16)
        ),
    ),
    weights=WeightRule(mixed=IntFormat(bits=8), one_sign=IntFormat(bits=8)),
    limits=Limits(accumulator=32, parameter=32, input_codes=255),
    input_as_bias=True,
    notes=("a readout that sums without a neuron needs a register of 48 bits: end with a neuron layer",),
)

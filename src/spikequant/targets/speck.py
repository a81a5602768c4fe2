"""``speck/1``: SynSense Speck / DYNAP-CNN, which has no time steps: limits only, equality is not promised.

The chip compares after every single event and has no step, so a network in steps approximates it ("graded faithful").
The check looks at sizes and widths; what the chip answers must be measured on the chip.
"""

from __future__ import annotations

from spikequant.law.formats import IntFormat
from spikequant.targets.profile import LeakRule, Limits, NeuronRule, NumberRule, StateRule, Target, WeightRule

SPECK = Target(
    name="speck",
    version=1,
    title="SynSense Speck / DYNAP-CNN: asynchronous convolutions without leak; limits only",
    promise="limits",
    sources=(
        "sinabs (2026-02): docs/speck/overview.md",
        "sinabs: sinabs/backend/dynapcnn/discretize.py (common scale, 8-bit weights, 16-bit states)",
    ),
    neurons=(
        NeuronRule(
            name="integrate and fire",
            leak=LeakRule(forms=("none",)),
            resets=("subtract",),
            outputs=("spike",),
            v=StateRule(bits=16, signed=(True,)),
        ),
    ),
    weights=WeightRule(mixed=IntFormat(bits=8), unit=1),
    numbers={
        "bias": NumberRule(low=-(2**7), high=2**7 - 1),
        "theta": NumberRule(low=1, high=2**15 - 1, per_layer=True),
        "reset": NumberRule(low=1, high=2**15 - 1),
    },
    equal_numbers=(("theta", "reset"),),
    limits=Limits(
        nodes=("input", "synapse", "neuron", "pool", "reshape"),
        input_codes=1,
        outputs=15,
        layers=9,
        fan_out=2,
        kernel=15,
        channels=1024,
        side=64,
        strides=(1, 2, 4, 8),
        pools=(1, 2, 4),
        delay=0,
    ),
    notes=(
        "graded faithful: the chip compares after every event and has no step; equality with it is not promised",
        "whether the 16-bit state wraps or saturates is not documented",
        "the chip may drop events under load",
        "one scale per layer for weights, bias, threshold and state",
    ),
)

"""How many fraction bits the accumulator of a neuron group has (DESIGN rule 2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikequant.nn.integers import integer_spec, wanted_exponent
from spikequant.quantizers import floor_ste

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron

LEAST_FRACTION_BITS = 4
SPARE_FRACTION_BITS = 4
FINE_BITS = 8
RATIO_BITS = 6
MOST_FRACTION_BITS = 24
WIDE_FRACTION_BITS = 8


def choose_fraction_bits(neuron: QuantizedNeuron, asked: int | None, where: str) -> list[str]:
    """Fraction bits that keep the leak exact on the finest register of the group; those of a chip where it fixes them.

    Sets ``neuron.fraction_bits``; returns a note where a register loses reach or fineness.
    """
    rule = neuron.choice.chip
    if rule is not None and rule.fraction_bits is not None:
        neuron.fraction_bits = rule.fraction_bits
        neuron.prove(neuron.integers())
        return []
    with torch.no_grad():
        scale = neuron.scale()
        fine = _fine_fraction_bits(neuron, scale)
        need = _needed(neuron, scale, fine)
    spare = max(need, fine + SPARE_FRACTION_BITS)
    for bits in (spare, need) if asked is None else (asked,):
        neuron.fraction_bits = min(bits, MOST_FRACTION_BITS)
        neuron.prove(neuron.integers())
        if not neuron.needs_double:
            break
    _keep_within(neuron, None if rule is None else rule.accumulator_bits)
    if neuron.fraction_bits < need:
        return [
            f"{where}: {neuron.fraction_bits} fraction bits where {need} would keep its registers "
            "at full reach and fineness"
        ]
    return []


def _needed(neuron: QuantizedNeuron, scale: Tensor, fine: int) -> int:
    """Bits with which every register reaches its limit, its leak is exact, and no path into the group is lost."""
    spec, need = integer_spec(neuron), fine
    for state, leak in (("v", spec.leak), ("i", spec.leak_i), ("x", None)):
        register = getattr(spec, state)
        if register is None:
            continue
        bits = leak.bits if leak is not None and leak.form == "multiply" and leak.rounding is None else 0
        wide = float(neuron.get_buffer(f"{state}_limit")) == 0.0
        finest = -WIDE_FRACTION_BITS if wide else int(wanted_exponent(neuron, state, register, scale).min())
        need = max(need, bits - finest)
    return max([need, *(RATIO_BITS - int(floor_ste(torch.log2(r.min()))) for r in _ratios(neuron, scale))])


def _keep_within(neuron: QuantizedNeuron, most: int | None) -> None:
    """Fewer fraction bits until the proven width is at most `most`."""
    while most is not None and neuron.fraction_bits > 0 and neuron.prove(neuron.integers()).accumulator_bits > most:
        neuron.fraction_bits -= 1


def _ratios(neuron: QuantizedNeuron, scale: Tensor) -> list[Tensor]:
    """Scales of the branches that do not share the first one's, in its units."""
    parts = [branch for branch in neuron.branches[1:] if not branch.shared]
    return [torch.where(branch.constant_channels(), 1.0, branch.scale() / scale) for branch in parts]


def _fine_fraction_bits(neuron: QuantizedNeuron, scale: Tensor) -> int:
    """Fraction bits that make one LSB at most 1/256 of the threshold: bias and threshold keep their place."""
    threshold = neuron.largest_threshold()
    if threshold == 0.0:
        return LEAST_FRACTION_BITS
    return max(0, FINE_BITS + math.ceil(math.log2(float(scale.max()) / threshold)))

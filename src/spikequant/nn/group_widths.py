"""The integers of a neuron group, and the proof that the simulation can carry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikequant.law.bounds import StepBounds, prove_step
from spikequant.law.errors import WidthError
from spikequant.law.spec import NeuronSpec

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron

DOUBLE_BITS = 53


@dataclass
class Integers:
    """The integers of a group, as float64 tensors that hold integers (or are learned through)."""

    spec: NeuronSpec
    params: dict[str, Tensor]
    lsb: Tensor
    gains: list[Tensor] = field(default_factory=list)


def prove_group(neuron: QuantizedNeuron, found: Integers, *, reach: bool) -> StepBounds:
    """Widths of one step of a group, from the widths of its registers and the L1 bound of its codes.

    Raises:
        WidthError: an intermediate needs more bits than a double holds.
    """
    params = {k: v.detach().to(torch.int64).numpy(force=True) for k, v in found.params.items()}
    high = torch.zeros_like(found.lsb)
    for branch, gain in zip(neuron.branches, found.gains, strict=True):
        codes = branch.synapse.codes().detach().flatten(1)
        pool = 1.0 / branch.pool_unit
        high = high + codes.abs().sum(1).to(torch.float64) * gain.abs() * branch.synapse.input_bound * pool
    most = high.to(torch.int64).numpy(force=True)
    bounds = prove_step(found.spec, params, -most, most, where=neuron.path, check_reach=reach)
    if bounds.accumulator_bits > DOUBLE_BITS:
        raise WidthError(
            f"{neuron.path}: an intermediate needs {bounds.accumulator_bits} bits, the simulation carries "
            f"{DOUBLE_BITS}; use fewer fraction, leak or state bits, or, if a learned scale collapsed, a smaller "
            "rate of the scales (training.parameter_groups)"
        )
    return bounds

"""How synapses meet in a neuron group, and what a plan says of the group's registers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikequant.law.formats import IntFormat
from spikequant.law.spec import StateFormat
from spikequant.nn.batch_norm import FoldedNorm
from spikequant.nn.chip import ChipRule
from spikequant.nn.synapse import Synapse
from spikequant.quantizers import Quantizer

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron


LEVEL_BITS = 8
"""Width of the integers among which the learned levels of a membrane are chosen."""


@dataclass(eq=False)
class Branch:
    """One path from a synapse into a neuron group."""

    synapse: Synapse
    norm: FoldedNorm | None
    neuron: QuantizedNeuron
    pool_unit: float = 1.0
    shared: bool = False
    kept: tuple[tuple[object, ...], Tensor] | None = field(default=None, repr=False)
    """The last gain that does not move with the scales, and what it was made from."""

    def raw_lsb(self) -> Tensor:
        """Real value of one accumulator LSB before batch norm, ``[C]``, float64."""
        return self.synapse.channel_scale().to(torch.float64) * self.pool_unit * 2.0**-self.neuron.fraction_bits

    def scale(self) -> Tensor:
        """Real value of one unit of the integer sum after batch norm, ``[C]``, float64."""
        scale = self.synapse.channel_scale().to(torch.float64) * self.pool_unit
        scale = scale if self.norm is None else scale * self.norm.fold()[0]
        return self.neuron.gained(scale)

    def bias(self) -> Tensor | None:
        """Real bias that this path brings, ``[C]``, float64."""
        bias = self.synapse.real_bias()
        bias = None if bias is None else bias.to(torch.float64)
        if self.norm is None:
            return None if bias is None else self.neuron.gained(bias)
        factor, mean, beta = self.norm.fold()
        sign = self.norm.sign().to(torch.float64)
        centre = -mean if bias is None else bias - mean
        return self.neuron.gained(sign * factor * centre + beta)

    def gain(self) -> tuple[Tensor, bool]:
        """Accumulator LSBs in one unit of the sum, ``[C]`` with the sign of gamma; and whether float64 is needed."""
        neuron = self.neuron
        if neuron.is_frozen:
            stored = neuron.get_buffer(f"int_gain_{neuron.branches.index(self)}")
            made_from: tuple[object, ...] = (stored, stored._version)
        else:
            stored, made_from = None, (neuron.fraction_bits, self.synapse.weight.device)
            if self.norm is not None or not (self.shared or self is neuron.branches[0]):  # it moves with the scales
                return neuron.gain_of(self).expand(self.synapse.weight.shape[0]), neuron.needs_double
        if self.kept is None or not _same(self.kept[0], made_from):
            gain = neuron.gain_of(self) if stored is None else stored.to(torch.float64)
            self.kept = (made_from, gain.expand(self.synapse.weight.shape[0]))
        return self.kept[1], neuron.needs_double

    def constant_channels(self) -> Tensor:
        """Channels that a batch norm with a gamma of (nearly) 0 makes constant: their scale says nothing."""
        if self.norm is not None:
            return self.norm.constant_channels()
        return torch.zeros(1, dtype=torch.bool, device=self.synapse.weight.device)

    def real_unit(self) -> float:
        """What one unit of the integer sum is worth besides the weight scale."""
        input_scale = 1.0 if self.synapse.input_scale is None else float(self.synapse.input_scale)
        return self.synapse.unit * self.pool_unit * input_scale

    def joint_scale(self) -> Tensor:
        """One weight scale for all synapses of the group: the largest that any of them needs."""
        scales = [branch.synapse.fitted_scale() for branch in self.neuron.branches]
        return torch.stack(scales).amax(0)


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Equality, by identity for tensors."""
    return len(one) == len(other) and all(
        a is b or (not isinstance(a, Tensor) and a == b) for a, b in zip(one, other, strict=True)
    )


@dataclass(frozen=True, kw_only=True)
class Register:
    """What a plan says of a state: width, sign, rounding, overflow; ``limit`` in real units or None.

    ``learned``: the state is one of ``2^bits`` levels that `calibrate` places (`nn/membrane_levels.py`); where a
    ``table`` is given, its levels are these, as shares of the threshold, and stay there.
    ``unit`` of ``weight``: one code is worth one unit of the weighted sums, whatever the limit.
    """

    bits: int
    signed: bool = True
    narrow: bool = False
    rounding: str = "toward_zero"
    overflow: str = "saturate"
    limit: float | None = None
    asked: bool = True
    choose_rounding: bool = False
    clipping: str = "threshold"
    unit: str = "limit"
    learned: bool = False
    table: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", tuple(self.table))  # a file brings a list

    def state_format(self) -> StateFormat:
        """The law's record of it."""
        if self.learned:
            return StateFormat(format=IntFormat(bits=LEVEL_BITS), rounding="half_up", levels=2**self.bits)
        fmt = IntFormat(bits=self.bits, signed=self.signed, narrow=self.narrow)
        return StateFormat(format=fmt, overflow=self.overflow, rounding=self.rounding)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class NeuronChoice:
    """How a neuron group is to be quantized."""

    membrane: Register
    current: Register | None = None
    input: Register | None = None
    adaptation: Register | None = None
    leak_bits: int = 8
    leak_rounding: str | None = None
    threshold: Quantizer | None = None
    leak: Quantizer | None = None
    bias: Quantizer | None = None
    narrow_before_fire: bool = False
    chip: ChipRule | None = None

    @property
    def counts_lsb(self) -> bool:
        """One code of a state is one accumulator LSB, because the chip says so."""
        return self.chip is not None and self.chip.counts_lsb

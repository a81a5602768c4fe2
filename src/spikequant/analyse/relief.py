"""Experiments on one layer: the same network with one role of that layer given back its precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spikequant.law.errors import PlanError, WidthError
from spikequant.law.formats import IntFormat
from spikequant.nn import QuantizedNeuron, Register, Synapse
from spikequant.nn.copying import copied
from spikequant.nn.reset import reset_states
from spikequant.quantize.scales import flows_into
from spikequant.quantizers import Quantizer, Uniform
from spikequant.training import first_output

Rates = npt.NDArray[np.float64]
Change = Callable[[QuantizedNeuron], None]
FINE_BITS = 12
WIDE = Register(bits=24, rounding="half_even", asked=False)


def thawed(model: nn.Module) -> nn.Module:
    """A copy whose integers can move again: they are made anew from the weights that it still carries."""
    free = copied(model)
    for module in free.modules():
        if isinstance(module, Synapse):
            module.frozen_codes = None
        elif isinstance(module, QuantizedNeuron) and module.is_frozen:
            module.spec = None
            for name in [n for n, _ in module.named_buffers(recurse=False) if n.startswith("int_") or n == "lsb"]:
                delattr(module, name)
    return free.eval()


@torch.no_grad()
def rates_after(free: nn.Module, path: str, inputs: list[Tensor], change: Change | None = None) -> Rates | None:
    """Rates ``[neurons]`` of the layer `path` with one change to it; None where the law refuses its widths.

    Batch norms of the layer are measured anew where the change moved its weights.
    """
    model = copy.deepcopy(free)
    neuron = model.get_submodule(path)
    assert isinstance(neuron, QuantizedNeuron)
    before = [branch.synapse.quantizer for branch in neuron.branches]
    try:
        if change is not None:
            change(neuron)
        if before != [branch.synapse.quantizer for branch in neuron.branches]:
            for norm in [branch.norm for branch in neuron.branches if branch.norm is not None]:
                norm.refit([x for batch in flows_into(model, norm, inputs) for x in batch])
        neuron.prove(neuron.integers())
    except (WidthError, PlanError):
        return None
    return rates_of(model, path, inputs)


@torch.no_grad()
def rates_of(model: nn.Module, path: str, inputs: list[Tensor]) -> Rates:
    """Mean spikes per step of every neuron of a layer, features flattened."""
    module: Any = model.get_submodule(path)
    seen: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda m, _i, out: seen.append(first_output(out).detach().abs() / m.spike_unit)
    )
    try:
        for x in inputs:
            reset_states(model)
            model(x)
    finally:
        handle.remove()
        reset_states(model)
    trains = [t if module.step_mode == "m" else t[None] for t in seen]
    total = torch.stack([t.sum((0, 1), dtype=torch.float64) for t in trains]).sum(0)
    rates: Rates = (total / sum(t.shape[0] * t.shape[1] for t in trains)).reshape(-1).numpy(force=True)
    return rates


# -- what may be given back ----------------------------------------------------------------


def wide_membrane(neuron: QuantizedNeuron) -> None:
    """The membrane in 24 bits, far beyond the threshold."""
    neuron.choice = replace(neuron.choice, membrane=WIDE)
    neuron.v_limit.fill_(0.0)


def wide_current(neuron: QuantizedNeuron) -> None:
    """The synaptic current, or the register of the input sum, in 24 bits."""
    if neuron.choice.current is not None:
        neuron.choice = replace(neuron.choice, current=WIDE)
        neuron.i_limit.fill_(0.0)
    if neuron.choice.input is not None:
        neuron.choice = replace(neuron.choice, input=WIDE)
        neuron.get_buffer("x_limit").fill_(0.0)


def real_threshold(neuron: QuantizedNeuron) -> None:
    """The threshold off its quantizer's grid."""
    neuron.choice = replace(neuron.choice, threshold=None)


def real_bias(neuron: QuantizedNeuron) -> None:
    """The bias off its quantizer's grid."""
    neuron.choice = replace(neuron.choice, bias=None)


def real_leak(neuron: QuantizedNeuron) -> None:
    """The leak in 16 bits, its product exact."""
    neuron.choice = replace(neuron.choice, leak=None, leak_bits=16, leak_rounding=None)
    neuron.choose_fraction_bits(None, "")


def enough_fraction_bits(neuron: QuantizedNeuron) -> None:
    """As many fraction bits as the registers, the bias and the threshold of the layer need."""
    neuron.choose_fraction_bits(None, "")


def fine_weights(neuron: QuantizedNeuron) -> None:
    """All weights that meet in the layer in 12 bits."""
    for branch in neuron.branches:
        requantize(branch.synapse, Uniform(FINE_BITS, scale_mode="fixed"))
    share_again(neuron)


def statistics_of(norms: Sequence[nn.Module]) -> Change:
    """The running statistics of the batch norms of another network, one for each that the layer has."""

    def change(neuron: QuantizedNeuron) -> None:
        own = [branch.norm for branch in neuron.branches if branch.norm is not None]
        for norm, source in zip(own, norms, strict=True):
            norm.running_mean.copy_(source.get_buffer("running_mean"))
            norm.running_var.copy_(source.get_buffer("running_var"))
        neuron.choose_fraction_bits(None, "")

    return change


def fine_input(peak: float) -> Change:
    """The network's input in 12 bits that reach the largest magnitude of the data."""

    def change(neuron: QuantizedNeuron) -> None:
        for branch in neuron.branches:
            if branch.synapse.input_format is not None:
                input_bits(branch.synapse, FINE_BITS, peak)
        neuron.choose_fraction_bits(None, "")

    return change


def input_bits(synapse: Synapse, bits: int, limit: float) -> None:
    """Another format for the input of a layer that reads the data."""
    assert synapse.input_format is not None
    signed = synapse.input_format.signed
    synapse.input_format = IntFormat(bits=bits, signed=signed, narrow=signed)
    synapse.input_bound = synapse.input_format.max
    synapse.set_input_limit(limit)


def requantize(synapse: Synapse, quantizer: Quantizer) -> None:
    """Other codes for the weights of a layer, their scale fitted anew."""
    synapse.change_quantizer(quantizer)
    synapse.train(synapse.training)


def share_again(neuron: QuantizedNeuron) -> None:
    """One scale for the synapses of a group that shared one, and fraction bits for the new scale."""
    if any(branch.shared for branch in neuron.branches):
        joint = neuron.branches[0].joint_scale()
        for branch in neuron.branches:
            branch.synapse.weight_scale = joint.clone()
    neuron.choose_fraction_bits(None, "")


def together(changes: list[Change]) -> Change:
    """Several changes at once."""

    def change(neuron: QuantizedNeuron) -> None:
        for one in changes:
            one(neuron)

    return change

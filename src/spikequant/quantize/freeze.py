"""`freeze`: from here on the model is integers, and nothing computes them again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from spikequant.law.errors import NotFrozen, Unsupported, WidthError
from spikequant.nn import Neuron, QuantizedNeuron, Synapse
from spikequant.quantize.finite import check_tensor


@dataclass(frozen=True, kw_only=True)
class FrozenLayer:
    """Proven facts of one neuron layer."""

    path: str
    accumulator_bits: int
    unreachable: int
    neurons: int


@dataclass(frozen=True)
class FreezeReport:
    """What `freeze` proved."""

    layers: tuple[FrozenLayer, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Layers in which some neurons can never fire."""
        return tuple(
            f"{layer.path}: {layer.unreachable} of {layer.neurons} channels cannot reach their threshold with any "
            "input; more weight bits, a lower threshold, or pruning them would change that"
            for layer in self.layers
            if layer.unreachable
        )


def freeze(model: nn.Module) -> FreezeReport:
    """Store codes, thresholds, biases and leaks as integers, in place; prove the widths.

    Batch norm counts with its running statistics.  Evaluation before and after is equal
    bit for bit.

    Raises:
        DataError: weights, or a learned scale, are NaN or infinite.
        NotFrozen: nothing of the model is quantized.
        WidthError: an intermediate does not fit 63 bits, or no neuron of a layer can ever fire.
    """
    return freeze_layers(model)


def freeze_layers(model: nn.Module, *, refuse_dead: bool = True) -> FreezeReport:
    """`freeze`; `refuse_dead` of False lets a layer pass that can never fire, for a look at the rest."""
    neurons = {path: m for path, m in model.named_modules() if isinstance(m, QuantizedNeuron)}
    synapses = {path: m for path, m in model.named_modules() if isinstance(m, Synapse)}
    if not neurons and not synapses:
        raise NotFrozen("there is nothing to freeze; call spikequant.quantize_(model, plan, example_input) first")
    for path, synapse in synapses.items():
        for name, parameter in synapse.named_parameters(recurse=False):
            check_tensor(f"{path}.{name}", parameter)
    real = [path for path, m in model.named_modules() if isinstance(m, Neuron)]
    was_training = model.training
    model.eval()
    layers = []
    try:
        for synapse in synapses.values():
            if not synapse.is_frozen:
                synapse.freeze()
        for path, neuron in neurons.items():
            if not neuron.is_frozen:
                layers.append(freeze_neuron(path, neuron, refuse_dead=refuse_dead))
    finally:
        model.train(was_training)
    if real and not neurons:
        raise Unsupported(f"the neurons {', '.join(real)} are not quantized; a frozen model needs integers everywhere")
    return FreezeReport(tuple(layers))


def freeze_neuron(path: str, neuron: QuantizedNeuron, *, refuse_dead: bool = True) -> FrozenLayer:
    """Store the integers of one neuron layer, whose synapses are frozen.

    Raises:
        WidthError: as `freeze`; the message names `path`.
    """
    neuron.path = path
    bounds = neuron.freeze()
    channels = neuron.scale().numel()
    dead = len(bounds.unreachable)
    if refuse_dead and dead and dead >= max(channels, 1):
        raise WidthError(f"{path}: no neuron of this layer can reach its threshold with any input; {_why(neuron)}")
    return FrozenLayer(path=path, accumulator_bits=bounds.accumulator_bits, unreachable=dead, neurons=channels)


@torch.no_grad()
def _why(neuron: QuantizedNeuron) -> str:
    """The largest input of a step and the reach of the membrane, beside the threshold."""
    found = neuron.integers()
    codes = [branch.synapse.codes().flatten(1) for branch in neuron.branches]
    if not any(bool(c.any()) for c in codes):
        return "all of its weight codes are zero: give it more weight bits, another clipping, or train it"
    most = sum(
        c.abs().sum(1).to(torch.float64) * b.synapse.input_bound / b.pool_unit * b.scale()
        for c, b in zip(codes, neuron.branches, strict=True)
    )
    assert isinstance(most, torch.Tensor) and found.spec.v is not None
    reach = float((found.params["v_load"] * found.lsb).max()) * found.spec.v.format.max
    return (
        f"its weights add at most {float(most.max()):.3g} in a step, its membrane register holds at most {reach:.3g}, "
        f"and the threshold is {neuron.default_limit():.3g}: raise the limit of the membrane or lower the threshold"
    )

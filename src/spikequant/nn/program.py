"""What a step of a quantized layer needs, made once per parameter version and not once per step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikequant.law.neurons import prepare
from spikequant.law.spec import NeuronSpec
from spikequant.nn.inference import ordinary_tensors
from spikequant.nn.loop import Prepared, States
from spikequant.nn.neuron import over_features
from spikequant.nn.torch_ops import TorchOps

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron


@dataclass(frozen=True, eq=False)
class Program:
    """The integers of a layer, shaped for its input and prepared for the law.

    Attributes:
        bias: added to the input before the loop, where the spec allows it; None elsewhere.
        units: real value of one code, by state.
    """

    spec: NeuronSpec
    params: Prepared
    ops: TorchOps
    bias: Tensor | None
    units: States
    gains: list[Tensor]


class ProgramCache:
    """The last program of a layer, with the tensors and choices that it was made from.

    A backward pass spends the graph of what is learned through, so it empties the cache.
    """

    def __init__(self) -> None:
        self.program: Program | None = None
        self.made_from: list[tuple[Tensor, int]] = []
        self.choices: tuple[Any, ...] = ()

    def clear(self) -> None:
        """Forget the program."""
        self.program, self.made_from = None, []

    def get(self, neuron: QuantizedNeuron, like: Tensor, features: int) -> Program:
        """The program of now; made anew if a tensor or a choice that it depends on has changed."""
        choices = _choices(neuron, like, features)
        if self.program is not None and self._holds(_tensors(neuron), choices):
            return self.program
        with ordinary_tensors():
            program = build(neuron, like, features)
        self.clear()
        if any(branch.norm is not None and branch.norm.measures for branch in neuron.branches):
            return program  # its thresholds belong to this batch
        self.program, self.choices = program, choices
        self.made_from = [(tensor, tensor._version) for tensor in _tensors(neuron)]
        for value in (*program.params.values(), program.ops.lsb, program.bias, *program.gains):
            if value is not None and value.requires_grad:
                value.register_hook(lambda _: self.clear())  # type: ignore[no-untyped-call]
        return program

    def _holds(self, tensors: list[Tensor], choices: tuple[Any, ...]) -> bool:
        same = len(tensors) == len(self.made_from) and choices == self.choices
        return same and all(
            now is then and now._version == version
            for now, (then, version) in zip(tensors, self.made_from, strict=True)
        )


def _choices(neuron: QuantizedNeuron, like: Tensor, features: int) -> tuple[Any, ...]:
    """Everything besides tensors that a program depends on."""
    return (
        neuron.choice, neuron.fraction_bits, neuron.spec, neuron.needs_double, neuron.last_axis, neuron.surrogate,
        neuron.detach_reset, torch.is_grad_enabled(), features, like.device.type,
    )  # fmt: skip


def _tensors(neuron: QuantizedNeuron) -> list[Tensor]:
    """Every tensor that the integers come from, the cached codes among them: their graph is shared."""
    found: list[Tensor | None] = [*neuron._parameters.values(), *neuron._buffers.values()]
    for branch in neuron.branches:
        synapse, norm = branch.synapse, branch.norm
        found += [*synapse._parameters.values(), *synapse._buffers.values(), synapse.codes()]
        if norm is not None:
            found += [*norm._parameters.values(), *norm._buffers.values()]
    return [tensor for tensor in found if tensor is not None]


def build(neuron: QuantizedNeuron, like: Tensor, features: int) -> Program:
    """Make the integers, give them the input's axes and type, and prepare them for the law."""
    dtype = torch.float64 if neuron.needs_double else torch.float32
    found = neuron.integers()
    lsb = over_features(found.lsb, features, last=neuron.last_axis).to(dtype)
    params = {k: over_features(v, features, last=neuron.last_axis).to(dtype) for k, v in found.params.items()}
    early = found.spec.x is None and not found.spec.refractory
    bias = params.pop("bias", None) if early else None
    ops = TorchOps(
        surrogate=neuron.surrogate, lsb=lsb, detach_reset=neuron.detach_reset, like=lsb, compares=neuron.compares
    )
    units = {n: params[f"{n}_load"] * lsb for n in ("v", "i") if f"{n}_load" in params}
    return Program(found.spec, Prepared(prepare(ops, found.spec, params)), ops, bias, units, found.gains)

"""What a step of a quantized layer needs, made once per parameter version and not once per step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikequant.law.neurons import prepare
from spikequant.law.spec import NeuronSpec
from spikequant.nn.group_widths import Integers
from spikequant.nn.inference import ordinary_tensors
from spikequant.nn.kept import Seen, shared
from spikequant.nn.loop import Noise, Prepared, States
from spikequant.nn.neuron import over_features
from spikequant.nn.torch_ops import TorchOps
from spikequant.quantizers import round_ste

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

    A backward pass empties the cache; the graph of what is learned through serves those that come later, too.
    """

    def __init__(self) -> None:
        self.program: Program | None = None
        self.made_from: list[Seen] = []
        self.choices: tuple[Any, ...] = ()
        self._made: tuple[Integers, tuple[Any, ...], list[Seen]] | None = None

    def clear(self) -> None:
        """Forget the program."""
        self.program, self.made_from, self._made = None, [], None

    def integers(self, neuron: QuantizedNeuron) -> Integers:
        """The integers of a layer, of which the next program is made if nothing changes until then."""
        found = neuron.integers()
        self._made = (found, _sources(neuron), [Seen(tensor) for tensor in _tensors(neuron)])
        return found

    def _integers(self, neuron: QuantizedNeuron) -> Integers:
        made, self._made = self._made, None
        if made is not None and made[1] == _sources(neuron) and _hold(made[2], _tensors(neuron)):
            return made[0]
        return neuron.integers()

    def get(self, neuron: QuantizedNeuron, like: Tensor, features: int) -> Program:
        """The program of now; made anew if a tensor or a choice that it depends on has changed."""
        choices = _choices(neuron, like, features)
        if self.program is not None and self._holds(_tensors(neuron), choices):
            return self.program
        with ordinary_tensors():
            program = build(neuron, self._integers(neuron), like, features)
        self.clear()
        if _measures(neuron):
            for norm in (branch.norm for branch in neuron.branches if branch.norm is not None):
                norm.forget()
            return program  # its thresholds belong to this batch
        self.program, self.choices = program, choices
        self.made_from = [Seen(tensor) for tensor in _tensors(neuron)]
        for value in (*program.params.values(), program.ops.lsb, program.bias, *program.gains):
            if value is not None and value.requires_grad:
                value.register_hook(lambda _: self.clear())  # type: ignore[no-untyped-call]
        return program

    def _holds(self, tensors: list[Tensor], choices: tuple[Any, ...]) -> bool:
        return choices == self.choices and _hold(self.made_from, tensors)


def _hold(then: list[Seen], now: list[Tensor]) -> bool:
    return len(then) == len(now) and all(seen.holds(tensor) for seen, tensor in zip(then, now, strict=True))


def _sources(neuron: QuantizedNeuron) -> tuple[Any, ...]:
    """Everything besides tensors that the integers depend on."""
    return neuron.choice, neuron.fraction_bits, neuron.spec, torch.is_grad_enabled()


def _measures(neuron: QuantizedNeuron) -> bool:
    """Whether the integers of now come from a batch that was just measured, and serve one forward pass."""
    return any(branch.norm is not None and branch.norm.measures for branch in neuron.branches)


def given_to(neuron: QuantizedNeuron, x: Tensor) -> tuple[Program, Tensor, Noise | None]:
    """What a layer runs on an input: its program, the input in whole units and in the program's type, its noise."""
    program = neuron.programs.get(neuron, x, neuron.check_features(x))
    x, pool_unit = x.to(program.ops.dtype), neuron.branches[0].pool_unit
    if pool_unit != 1.0:
        x = round_ste(x / pool_unit, "half_even")
    registers = (neuron.choice.membrane, neuron.choice.current, neuron.choice.input, neuron.choice.adaptation)
    is_noisy = any(r is not None and r.rounding == "stochastic" for r in registers)
    return program, x, Noise(neuron.seed, neuron.layer, neuron.first_sample) if is_noisy else None


def _choices(neuron: QuantizedNeuron, like: Tensor, features: int) -> tuple[Any, ...]:
    """Everything besides tensors that a program depends on."""
    return (
        *_sources(neuron), neuron.needs_double, neuron.last_axis, neuron.surrogate, neuron.detach_reset, features,
        like.device.type,
    )  # fmt: skip


def _tensors(neuron: QuantizedNeuron) -> list[Tensor]:
    """Every tensor that the integers come from, and the codes that were made of them."""
    return [*_own_tensors(neuron), *(branch.synapse.codes() for branch in neuron.branches)]


def _own_tensors(neuron: QuantizedNeuron) -> list[Tensor]:
    """Parameters and buffers of a group."""
    found: list[Tensor | None] = [*neuron._parameters.values(), *neuron._buffers.values()]
    for branch in neuron.branches:
        synapse, norm = branch.synapse, branch.norm
        found += [*synapse._parameters.values(), *synapse._buffers.values()]
        if norm is not None:
            found += [*norm._parameters.values(), *norm._buffers.values()]
    return [tensor for tensor in found if tensor is not None]


def build(neuron: QuantizedNeuron, found: Integers, like: Tensor, features: int) -> Program:
    """Give the integers the input's axes and type, and prepare them for the law."""
    dtype = torch.float64 if neuron.needs_double else torch.float32
    lsb = over_features(found.lsb, features, last=neuron.last_axis).to(dtype)
    params = {k: over_features(v, features, last=neuron.last_axis).to(dtype) for k, v in found.params.items()}
    early = found.spec.x is None and not found.spec.refractory
    bias = [params.pop("bias")] if early and "bias" in params else []
    units = {n: params[f"{n}_load"] * lsb for n in ("v", "i") if f"{n}_load" in params}
    ready = prepare(_ops(neuron, lsb), found.spec, params)
    ready, units, [lsb, *rest] = _for_every_backward(neuron, ready, units, [lsb, *found.gains, *bias])
    gains, bias = rest[: len(found.gains)], rest[len(found.gains) :]
    return Program(found.spec, Prepared(ready), _ops(neuron, lsb), bias[0] if bias else None, units, gains)


def _ops(neuron: QuantizedNeuron, lsb: Tensor) -> TorchOps:
    return TorchOps(
        surrogate=neuron.surrogate, lsb=lsb, detach_reset=neuron.detach_reset, like=lsb, compares=neuron.compares
    )


def _for_every_backward(
    neuron: QuantizedNeuron, params: States, units: States, others: list[Tensor]
) -> tuple[States, States, list[Tensor]]:
    """The same values with a graph that is not spent by the first backward pass (`kept.shared`)."""
    if _measures(neuron):  # their graph goes through the layers in front
        return params, units, others
    made = iter(shared([*params.values(), *units.values(), *others], _own_tensors(neuron)))
    return {n: next(made) for n in params}, {n: next(made) for n in units}, list(made)

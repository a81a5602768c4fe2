"""`verify`: the frozen model against the golden network, every spike and every stored state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.capture import Graph, capture
from spikequant.law.errors import DataError, MismatchError
from spikequant.law.formats import IntArray
from spikequant.law.network import IntNet
from spikequant.nn import ENCODERS, QuantizedNeuron, Synapse
from spikequant.nn.reset import count_samples_from
from spikequant.nn.reset import reset_states as reset
from spikequant.readers import golden


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first place where two readers disagree."""

    layer: str
    what: str
    step: int
    sample: int
    neuron: int
    expected: int
    got: int

    def __str__(self) -> str:
        return (
            f"{self.layer}: {self.what} of neuron {self.neuron}, sample {self.sample}, step {self.step}: "
            f"the golden model has {self.expected}, the simulation {self.got}"
        )


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was compared, and that it was alive: equality of silent networks proves nothing."""

    neuron_steps: int
    spikes: int
    states_compared: int
    differences: int
    first: Difference | None = None
    layers: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return (
            f"verify: {self.neuron_steps:,} neuron-steps, {self.spikes:,} spikes, {self.states_compared:,} states, "
            f"{self.differences:,} differences"
        )


def verify(
    model: nn.Module, net: IntNet, inputs: Tensor, *, raise_on_difference: bool = True, first_sample: int = 0
) -> VerifyReport:
    """Run both on `inputs` and compare every spike and every stored state, exactly.

    The model runs twice: once with its states in view, by the plain loop over time, and once as `evaluate` runs it,
    where fused kernels may take the loop's place.

    `first_sample`: number of the first sample in the noise of stochastic rounding; a batch that begins behind another
    one then gives what one call on both gives.

    Raises:
        MismatchError: they differ; the message names the first difference.
        DataError: `inputs` do not fit the network.
    """
    if not isinstance(model, nn.Module) or not isinstance(net, IntNet) or not isinstance(inputs, Tensor):
        raise DataError(
            "verify(model, net, inputs): expected an nn.Module, an IntNet and a tensor (one batch), got "
            f"{type(model).__name__}, {type(net).__name__} and {type(inputs).__name__}"
        )
    if not bool(torch.isfinite(inputs).all()):
        raise DataError("the inputs hold NaN or infinite values; remove them first")
    count_samples_from(model, first_sample)
    try:
        report = _compared(model, net, inputs, first_sample)
    finally:
        count_samples_from(model, 0)
    if report.first is not None and raise_on_difference:
        raise MismatchError(f"{report.first}; {report.differences:,} differences in all")
    return report


def _compared(model: nn.Module, net: IntNet, inputs: Tensor, first_sample: int) -> VerifyReport:
    graph = capture(model, inputs)
    codes = network_input(model, net, inputs, graph)
    expected = golden.run(net, codes, first_sample=first_sample)
    outputs, states, result = simulate(model, inputs, net)
    as_run = spikes_as_run(model, inputs)
    first: Difference | None = None
    compared = differences = 0
    for name, train in expected.outputs.items():
        pairs = [("state " + s, value, states[name].get(s)) for s, value in expected.states[name].items()]
        if name in outputs:
            pairs.append(("output", train, outputs[name]))
        if name in as_run:
            pairs.append(("output without watching states", train, as_run[name]))
        for what, wanted, got in pairs:
            if got is None:
                raise MismatchError(f"{name}: the simulation has no {what}; was the model changed after lower?")
            compared += wanted.size if what.startswith("state") else 0
            count, where = _compare(name, what, wanted, got)
            differences += count
            first = where if first is None or (where is not None and where.step < first.step) else first
    if first is None:
        _check_scores(net, expected, result, graph)
    spikes = sum(int(expected.outputs[n.name].sum()) for n in net.neurons if n.spec.output == "spike")
    return VerifyReport(
        neuron_steps=sum(train.size for train in expected.outputs.values()),
        spikes=spikes,
        states_compared=compared,
        differences=differences,
        first=first,
        layers=tuple(expected.outputs),
    )


def network_input(model: nn.Module, net: IntNet, inputs: Tensor, graph: Graph) -> IntArray:
    """The input of the golden model for an input of the torch model: encoded, time first."""
    encoders = [m for m in model.modules() if isinstance(m, ENCODERS)]
    with torch.no_grad():
        x = encoders[0](inputs) if encoders else inputs
    x = graph.time_first(x)
    if graph.input_layout == "step":
        x = x[None]
    return golden.encode(net, x.numpy(force=True))


def _spike_hook(seen: list[Tensor]) -> Callable[[QuantizedNeuron, Any, Any], None]:
    """Keep what left a layer, in whole spikes."""

    def hook(layer: QuantizedNeuron, _inputs: Any, answer: Any) -> None:
        left = answer[0] if isinstance(answer, tuple) else answer
        seen.append(left / layer.spike_unit if layer.real_spec.output == "spike" else left.clone())

    return hook


@contextmanager
def _watched(
    model: nn.Module, *, states: bool = True
) -> Iterator[tuple[dict[str, list[Any]], dict[str, list[Tensor]]]]:
    """Collect outputs by hook, states and readout sums by the modules' own lists."""
    outputs: dict[str, list[Any]] = {}
    handles = []
    sums: dict[str, list[Tensor]] = {}
    for path, module in model.named_modules():
        if isinstance(module, QuantizedNeuron):
            module.watch = [] if states else None
            outputs[path] = []
            handles.append(module.register_forward_hook(_spike_hook(outputs[path])))
        elif states and isinstance(module, Synapse) and module.link is None:
            module.watch = sums.setdefault(path, [])
    try:
        yield outputs, sums
    finally:
        for handle in handles:
            handle.remove()
        for module in model.modules():
            if isinstance(module, (QuantizedNeuron, Synapse)):
                module.watch = None


def simulate(
    model: nn.Module, inputs: Tensor, net: IntNet
) -> tuple[dict[str, IntArray], dict[str, dict[str, IntArray]], Tensor]:
    """The frozen model on `inputs`: spikes and stored states of every layer as integers, and its own answer."""
    was_training = model.training
    model.eval()
    reset(model)
    states: dict[str, dict[str, IntArray]] = {}
    trains: dict[str, IntArray] = {}
    try:
        with torch.no_grad(), _watched(model) as (outputs, sums):
            result = model(inputs)
            for path, module in model.named_modules():
                if isinstance(module, QuantizedNeuron) and module.watch:
                    states[path] = {k: _stack([s[k] for s in module.watch]) for k in module.watch[0]}
                    if module.real_spec.output == "spike":
                        trains[path] = _ints(outputs[path][0]) if module.step_mode == "m" else _stack(outputs[path])
            steps = net.steps
            for path, parts in sums.items():
                states[f"{path}.readout"] = {"v": _readout_states(parts, net, f"{path}.readout", steps)}
    finally:
        model.train(was_training)
        reset(model)
    return trains, states, result[0] if isinstance(result, (tuple, list)) else result


def spikes_as_run(model: nn.Module, inputs: Tensor) -> dict[str, IntArray]:
    """Spikes of every layer as `evaluate` runs the model: nothing looks at states, so that fused kernels may run."""
    was_training = model.training
    model.eval()
    reset(model)
    try:
        with torch.no_grad(), _watched(model, states=False) as (outputs, _):
            model(inputs)
            layers = {p: m for p, m in model.named_modules() if isinstance(m, QuantizedNeuron) and outputs[p]}
            return {
                path: _ints(outputs[path][0]) if module.step_mode == "m" else _stack(outputs[path])
                for path, module in layers.items()
                if module.real_spec.output == "spike"
            }
    finally:
        model.train(was_training)
        reset(model)


def _readout_states(parts: list[Tensor], net: IntNet, name: str, steps: int) -> IntArray:
    """The integrator of a last layer without neuron: running sums of what the layer gave."""
    node: Any = net.node(name)
    joined = torch.stack(parts) if len(parts) > 1 else parts[0]
    train = _ints(joined.reshape(steps, -1, *node.shape))
    return np.cumsum(train, axis=0) if "leak" not in node.spec.order else train


def _stack(parts: list[Tensor]) -> IntArray:
    return _ints(torch.stack(parts))


def _ints(tensor: Tensor) -> IntArray:
    array = tensor.numpy(force=True)
    whole = array.astype(np.int64)
    if np.any(whole != array):
        raise MismatchError(
            "the simulation holds values that are no integers; is the model frozen and in evaluation mode?"
        )
    return whole


def _compare(name: str, what: str, wanted: IntArray, got: IntArray) -> tuple[int, Difference | None]:
    if wanted.shape != got.shape:
        raise MismatchError(
            f"{name}: {what} has the shape {got.shape} in the simulation and {wanted.shape} in the golden model"
        )
    wrong = wanted != got
    count = int(wrong.sum())
    if count == 0:
        return 0, None
    step, sample, *rest = (int(k) for k in np.argwhere(wrong)[0])
    neuron = int(np.ravel_multi_index(tuple(rest), wanted.shape[2:])) if rest else 0
    place = (step, sample, *rest)
    return count, Difference(
        layer=name, what=what, step=step, sample=sample, neuron=neuron, expected=int(wanted[place]), got=int(got[place])
    )


def _check_scores(net: IntNet, expected: golden.Run, result: Tensor, graph: Graph) -> None:
    """The decoder must read what the model's own code reads (to float rounding)."""
    wanted = expected.scores * net.decoder.scale
    if graph.output.reduction == "train":
        wanted = graph.as_answered(torch.from_numpy(wanted)).numpy()
    got = result.numpy(force=True)
    if got.shape != wanted.shape:
        got = got.reshape(wanted.shape) if got.size == wanted.size else got
    scale = max(1e-12, float(np.abs(wanted).max()))
    if got.shape != wanted.shape or float(np.abs(got - wanted).max()) > 1e-4 * scale:
        raise MismatchError(
            f"the decoder {net.decoder.name} of the network does not give the model's output; "
            f"shapes {wanted.shape} and {got.shape}"
        )

"""Watch a model while it runs: firing of every neuron layer, operations of every weighted layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.measure import FiringStatistics, SynOps, fan_out_conv1d, fan_out_conv2d, fan_out_linear
from spikequant.nn import STATEFUL, SYNAPSES, Synapse
from spikequant.nn.reset import reset_states
from spikequant.training import check_batch, first_output


@dataclass
class Observation:
    """What one pass over the data showed."""

    firing: dict[str, FiringStatistics] = field(default_factory=dict)
    operations: dict[str, SynOps] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    predictions: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    steps: int = 0

    @property
    def right(self) -> np.ndarray:
        """Per sample, whether it was classified right."""
        result: np.ndarray = (torch.cat(self.predictions) == torch.cat(self.targets)).numpy()
        return result


def observe(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, operations: bool = True) -> Observation:
    """Run `model` over `batches` in evaluation mode and count, in O(neurons) memory.

    Raises:
        DataError: no batch.
    """
    found = Observation()
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _watching(model, found, operations):
            for x, y in batches:
                check_batch(x)
                reset_states(model)
                output = first_output(model(x))
                found.predictions.append(output.argmax(-1).cpu())
                found.targets.append(y.cpu())
                _flush(found)
    finally:
        model.train(was_training)
        reset_states(model)
    if not found.targets:
        raise DataError("the loader gave no batch; expected at least one (input, target)")
    return found


@contextmanager
def _watching(model: nn.Module, found: Observation, operations: bool) -> Iterator[None]:
    handles = []
    found_steps: dict[str, list[np.ndarray]] = {}
    found.__dict__["_steps"] = found_steps
    for path, module in model.named_modules():
        if isinstance(module, STATEFUL) and _spikes(module):
            handles.append(module.register_forward_hook(_firing_hook(path, found_steps)))
        elif operations and isinstance(module, (*SYNAPSES, Synapse)):
            handles.append(module.register_forward_pre_hook(_operations_hook(path, found)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _spikes(module: nn.Module) -> bool:
    spec: Any = getattr(module, "real_spec", None) or module.spec
    return bool(spec.output == "spike")


def _firing_hook(path: str, steps: dict[str, list[np.ndarray]]):  # type: ignore[no-untyped-def]
    def hook(module: nn.Module, _inputs: object, output: Tensor) -> None:
        array = output.numpy(force=True).copy()  # a model may add onto it in place
        steps.setdefault(path, []).append(array if module.step_mode == "m" else array[None])

    return hook


def _flush(found: Observation) -> None:
    """Give the steps of one batch to the statistics: a half of the data is whole batches."""
    steps: dict[str, list[np.ndarray]] = found.__dict__["_steps"]
    for path, parts in steps.items():
        train = np.concatenate(parts)
        found.shapes[path] = train.shape[2:]
        found.steps = max(found.steps, train.shape[0])
        found.firing.setdefault(path, FiringStatistics(path)).update(train)
    steps.clear()


def _operations_hook(path: str, found: Observation):  # type: ignore[no-untyped-def]
    def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
        array = inputs[0].numpy(force=True)
        kernel_axes = module.weight.dim() - 2
        merged = array.reshape(1, -1, *array.shape[-(kernel_axes + 1) :])
        if path not in found.operations:
            found.operations[path] = _counter(path, module, merged.shape[2:])
        found.operations[path].update(merged)

    return hook


def _counter(path: str, module: Any, shape: tuple[int, ...]) -> SynOps:
    weight = module.codes() if isinstance(module, Synapse) else module.weight
    array = weight.detach().numpy(force=True)
    if array.ndim == 2:
        return SynOps(fan_out_linear(array), array.size, layer=path)
    function = fan_out_conv1d if array.ndim == 3 else fan_out_conv2d
    names = ("stride", "padding", "dilation")
    options = {name: _plain(getattr(module, name), array.ndim - 2) for name in names}
    fan_out = function(array, _plain(shape, 0), groups=module.groups, **options)
    dense = function(np.ones_like(array), _plain(shape, 0), groups=module.groups, **options)
    return SynOps(fan_out, int(dense.sum()), layer=path)


def _plain(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (tuple, list, torch.Size)) else (int(value),) * axes

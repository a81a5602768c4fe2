"""Firing rates of neuron layers over calibration data, apart for every other sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.registry import read_
from spikequant.law.errors import DataError
from spikequant.nn import NeuronLayer
from spikequant.nn.reset import reset_states as reset


@dataclass(frozen=True)
class Halves:
    """Rates of the neurons of a layer, ``[*features]`` in float64: over even samples and over odd ones.

    Attributes:
        searched: those that a search may look at.
        held: those that judge it.
    """

    searched: Tensor
    held: Tensor


class Counter:
    """Adds up spikes batch by batch.

    >>> counter = Counter()
    >>> counter.add(torch.tensor([[[1.0], [0.0]], [[1.0], [1.0]]]))  # T = 2, N = 2, one neuron
    >>> counter.halves()
    Halves(searched=tensor([1.], dtype=torch.float64), held=tensor([0.5000], dtype=torch.float64))
    """

    def __init__(self) -> None:
        self.sums: list[Tensor | float] = [0.0, 0.0]
        self.places = [0, 0]

    def add(self, train: Tensor) -> None:
        """Spikes ``[T, N, *features]``, each worth 1."""
        counts = train.abs().sum(0)
        for half in range(2):
            part = counts[half::2]
            self.sums[half] = self.sums[half] + part.sum(0, dtype=torch.float64)
            self.places[half] += len(part) * len(train)

    def halves(self) -> Halves:
        """The rates.

        Raises:
            DataError: fewer than two samples.
        """
        if 0 in self.places:
            raise DataError(
                "matching needs two samples or more: it searches on one half of them and judges on the other"
            )
        searched, held = (torch.as_tensor(s) / p for s, p in zip(self.sums, self.places, strict=True))
        return Halves(searched, held)


def spiking(module: NeuronLayer) -> bool:
    """Whether a layer emits spikes, not its membrane."""
    return module.neuron_spec.output == "spike"


@torch.no_grad()
def layer_rates(model: nn.Module, inputs: list[Tensor], paths: Iterable[str]) -> dict[str, Halves]:
    """Rates of some layers of a model in evaluation mode."""
    counters = {path: Counter() for path in paths}
    steps: dict[str, list[Tensor]] = {}
    handles = [model.get_submodule(path).register_forward_hook(_keeping(steps, path)) for path in counters]
    try:
        for x in inputs:
            steps.clear()
            reset(model)
            model(x)
            for path, pieces in steps.items():
                counters[path].add(torch.cat(pieces))
    finally:
        for handle in handles:
            handle.remove()
        reset(model)
    return {path: counter.halves() for path, counter in counters.items()}


def _keeping(steps: dict[str, list[Tensor]], path: str) -> Any:
    def keep(module: Any, _inputs: object, output: Any) -> None:
        train = output[0] if isinstance(output, (tuple, list)) else output
        spikes = train.detach() / module.spike_unit
        steps.setdefault(path, []).append(spikes if module.step_mode == "m" else spikes[None])

    return keep


def float_rates(model: nn.Module, inputs: list[Tensor], paths: list[str]) -> dict[str, Halves]:
    """The same of a float network, whose neurons may be those of another library; it is left as it was.

    Raises:
        DataError: a layer is missing.
    """
    was_training = {module: module.training for module in model.modules()}
    readings = read_(model)
    model.eval()
    try:
        layers = {path for path, m in model.named_modules() if isinstance(m, NeuronLayer) and spiking(m)}
        missing = [path for path in paths if path not in layers]
        if missing:
            raise DataError(
                f"match_firing: the float model has no spiking layer {missing[0]!r}; expected the network from before "
                f"quantize_ (its layers: {', '.join(sorted(layers)) or 'none'})"
            )
        return layer_rates(model, inputs, paths)
    finally:
        readings.undo()
        for module, training in was_training.items():
            module.training = training

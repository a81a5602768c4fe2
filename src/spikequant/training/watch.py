"""Watch a model while it trains: the spikes of every layer, and its answer at every step of time."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from spikequant.capture import LayerwiseRunner, capture
from spikequant.law.errors import CaptureError, DataError, Unsupported
from spikequant.nn import NeuronLayer
from spikequant.nn.reset import reset_states


@final
class SpikeWatch:
    """A context in which `take` gives the trains of the forward passes since the last `take`.

    Raises:
        DataError: the model has no layer whose spikes can be seen.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, NeuronLayer) and module.neuron_spec.output == "spike"
        }
        if not self.layers:
            raise DataError(
                "the model has no spiking layer that can be watched; quantize it first, or build it from spikequant.nn"
            )
        self._parts: dict[str, list[Tensor]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        self._handles = [layer.register_forward_hook(self._seen(path)) for path, layer in self.layers.items()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._parts = {}

    def take(self) -> dict[str, Tensor]:
        """``[T, N, *features]`` by path, in the order in which the layers ran; forgets them."""
        parts, self._parts = self._parts, {}
        return {path: pieces[0] if len(pieces) == 1 else torch.cat(pieces) for path, pieces in parts.items()}

    def _seen(self, path: str):  # type: ignore[no-untyped-def]
        def hook(module: NeuronLayer, _inputs: object, output: Any) -> None:
            spikes: Tensor = output[0] if isinstance(output, (tuple, list)) else output
            train = spikes if module.spike_unit == 1.0 else spikes / module.spike_unit
            self._parts.setdefault(path, []).append(train if module.step_mode == "m" else train[None])

        return hook


@final
class OverTimeRunner:
    """A model's graph, run layer by layer; gives its answer and what it was at every step of time.

    Raises:
        CaptureError: the model cannot be captured, or its answer has no train over time.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        reset_states(model)
        try:
            graph = capture(model, x)
            if graph.input_layout == "step":
                raise CaptureError("the model does one step per call")
            train = replace(graph.output, reduction="train", layout="time_first")
            self._train = LayerwiseRunner(model, replace(graph, output=train))
            self._answer = LayerwiseRunner(model, graph)
        except (CaptureError, DataError, Unsupported) as error:
            raise CaptureError(f"fit: a term needs the model's answer at every step of time: {error}") from error
        finally:
            reset_states(model)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The answer as the model gives it, and ``[T, N, classes]``."""
        train = self._train(x)
        output = self._answer.graph.output
        if output.reduction == "train":
            return self._answer.graph.as_answered(train), train
        if output.reduction == "last":
            return train[-1], train
        if output.reduction == "max":
            return train.amax(0), train
        return train.sum(0) if output.reduction == "sum" else train.mean(0), train


__all__ = ["OverTimeRunner", "SpikeWatch"]

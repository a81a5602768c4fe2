"""Capture: run a model once and read its graph, also out of a user's own loop over time."""

from __future__ import annotations

from torch import Tensor, nn

from spikequant.capture.build import build
from spikequant.capture.execute import LayerwiseRunner
from spikequant.capture.fold import fold
from spikequant.capture.graph import Graph, GraphEdge, GraphNode, Output
from spikequant.capture.recorder import record
from spikequant.capture.segments import SegmentedRunner
from spikequant.law.errors import DataError
from spikequant.nn import ATOMS, STATEFUL
from spikequant.nn.reset import reset_states

__all__ = [
    "Graph",
    "GraphEdge",
    "GraphNode",
    "LayerwiseRunner",
    "Output",
    "SegmentedRunner",
    "capture",
    "check_arguments",
]


def capture(model: nn.Module, example_input: Tensor) -> Graph:
    """The graph of `model`, from one recorded pass over `example_input` in evaluation mode.

    Understood are multi-step modules on ``[T, N, ...]``, single-step modules in the
    model's own ``for t in range(T)``, `nn.Sequential`, residual, concatenating and
    recurrent connections, and models that do one step per call.

    Args:
        model: a network of torch layers and spiking neurons.
        example_input: a batch of at least 2 samples, as `model` takes it.

    Raises:
        CaptureError: something has no place in a static graph; the message names its line.
        DataError: no module, no tensor, or a shape that the model cannot take.
    """
    check_arguments(model, example_input)
    reset_states(model)
    try:
        recording = record(model, example_input, ATOMS)
    except RuntimeError as error:
        raise DataError(f"the model cannot take an input of shape {tuple(example_input.shape)}: {error}") from error
    finally:
        reset_states(model)
    folded = fold(recording, lambda path: isinstance(recording.modules[path], STATEFUL))
    return build(folded, dict(model.named_modules()))


def check_arguments(model: nn.Module, example_input: Tensor) -> None:
    """Raise `DataError` if these are no module and no tensor."""
    if not isinstance(model, nn.Module):
        raise DataError(f"expected a torch nn.Module as model, got {type(model).__name__}")
    if not isinstance(example_input, Tensor):
        raise DataError(
            f"expected a torch tensor as input, got {type(example_input).__name__}; one batch, as the model takes it"
        )

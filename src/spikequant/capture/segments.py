"""A captured graph run over time in segments that are computed again in the backward pass.

The memory of a training step grows with the number of steps; here it grows with the length of a segment: between the
segments only the states of the neurons are kept.  Gradients are those of the whole run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spikequant.capture.execute import LayerwiseRunner, Values, _multi_step
from spikequant.capture.graph import Graph, GraphNode
from spikequant.law.errors import CaptureError, DataError
from spikequant.nn import ENCODERS, STATEFUL, FoldedNorm, NeuronLayer
from spikequant.nn.loop import States

MEASURES_ALL_STEPS = (nn.modules.batchnorm._BatchNorm, FoldedNorm)


class SegmentedRunner(LayerwiseRunner):
    """Calls like the model it was captured from; a backward pass needs the memory of one segment of time.

    Args:
        model: as for `LayerwiseRunner`.
        graph: of the model.
        steps: time steps of a segment.

    Raises:
        CaptureError: something in the graph looks over the border of a segment: a recurrent connection, a delay, an
            encoder, a state that is read, batch norm (which measures all steps of a batch together).
    """

    def __init__(self, model: nn.Module, graph: Graph, steps: int) -> None:
        super().__init__(model, graph)
        if steps < 1:
            raise DataError(f"segments of {steps} time steps; expected at least 1")
        self.steps = steps
        reason = _looks_over_the_border(model, graph, self)
        if reason:
            raise CaptureError(f"segments of time: {reason}; leave segment= away for this model")

    def __call__(self, x: Tensor) -> Tensor:
        """The model's output for a whole input."""
        x = self.graph.time_first(x)
        static = self.graph.input_layout == "static"
        if not static and x.shape[0] != self.graph.steps:
            raise DataError(f"the graph was captured over {self.graph.steps} steps, the input has {x.shape[0]}")
        self._prepare(x)
        values: Values = {"input": x}
        for group in self.groups:
            node = group[0]
            if not node.per_step and node.name not in values:
                values[node.name] = self.whole(node, values)
        if not self.graph.node(self.graph.output.source).per_step:
            return self.reading(values)
        trains: list[Tensor] = []
        states: dict[str, States] = {}
        for start in range(0, self.graph.steps, self.steps):
            part = _Segment(self, start, min(self.steps, self.graph.steps - start), values)
            trains.append(part.run(states))
            states = part.states
        values[self.graph.output.source] = torch.cat(trains)
        return self.reading(values)

    def _prepare(self, x: Tensor) -> None:
        """One step of one sample, so that codes and integers are made outside of the segments, not again in each."""
        static = self.graph.input_layout == "static"
        layout: Literal["static", "time_first"] = "static" if static else "time_first"
        LayerwiseRunner(self.model, replace(self.graph, steps=1, input_layout=layout))(x[:1] if static else x[:1, :1])


class _Segment(LayerwiseRunner):
    """Some steps of a run, from the states that the steps before left."""

    def __init__(self, whole: SegmentedRunner, start: int, steps: int, values: Values) -> None:
        self.model, self.graph, self.groups = whole.model, replace(whole.graph, steps=steps), whole.groups
        self.start, self.values, self.states = start, dict(values), dict[str, States]()
        self.before: dict[str, States] = {}

    def run(self, states: dict[str, States]) -> Tensor:
        """What the output node gives in these steps; `states` afterwards are in ``self.states``."""
        names = [(node, name) for node in states for name in states[node]]
        found: tuple[Tensor, ...] = checkpoint(
            self.compute, names, *(states[node][name] for node, name in names), use_reentrant=False
        )
        after = iter(found[1:])
        self.states = {node: {name: next(after) for name in kept} for node, kept in self.states.items()}
        return found[0]

    def compute(self, names: list[tuple[str, str]], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Output and states; called again in the backward pass."""
        self.before, self.states = {}, {}
        for (node, name), tensor in zip(names, tensors, strict=True):
            self.before.setdefault(node, {})[name] = tensor
        values = dict(self.values)
        if self.graph.input_layout != "static":
            values["input"] = self.values["input"][self.start : self.start + self.graph.steps]
        for group in self.groups:
            if group[0].name not in values:
                values[group[0].name] = self.whole(group[0], values)
        kept = [tensor for states in self.states.values() for tensor in states.values()]
        return (values[self.graph.output.source], *kept)

    def neurons(self, node: GraphNode, module: NeuronLayer, x: Tensor, values: Values) -> Tensor:
        """A neuron layer that goes on from its last segment."""
        carries = module.carries
        with _multi_step(module):
            try:
                module.carries, module.state, module.steps_done = True, self.before.get(node.name), self.start
                output: Tensor = module(x)
                self.states[node.name] = dict(module.state or {})
            finally:
                module.carries = carries
                module.reset()
        return output


def _looks_over_the_border(model: nn.Module, graph: Graph, runner: LayerwiseRunner) -> str:
    """What in a graph needs more than the states of neurons from the steps before; empty if nothing does."""
    if any(len(group) > 1 for group in runner.groups) or any(e.delay for n in graph.nodes for e in n.inputs):
        return "the graph has a recurrent connection or a delay"
    if any(node.kind == "state" for node in graph.nodes):
        return "the model reads a state of a neuron"
    if graph.output.layout == "batch_merged":
        return "time and batch of the output are merged"
    for path, module in graph.modules(model).items():
        if isinstance(module, ENCODERS) or (isinstance(module, STATEFUL) and not isinstance(module, NeuronLayer)):
            return f"{path} ({type(module).__name__}) has a memory of its own"
        if any(isinstance(m, MEASURES_ALL_STEPS) for m in module.modules()):
            return f"{path} ({type(module).__name__}) measures all steps of a batch together"
    return ""


__all__ = ["SegmentedRunner"]

"""Run a captured graph layer by layer over all time steps; only recurrent parts step.

A model that loops over time itself calls every layer `T` times on ``[N, ...]``.  Run from
its graph, every layer without memory sees ``[T * N, ...]`` at once, a static input is
computed once, and a neuron layer runs its own loop (`nn/loop.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.capture.graph import Graph, GraphEdge, GraphNode
from spikequant.law.errors import CaptureError, DataError
from spikequant.nn import ENCODERS, STATEFUL, NeuronLayer
from spikequant.nn.by_step import apart, stacked
from spikequant.nn.delay import delayed

Values = dict[str, Tensor]


class LayerwiseRunner:
    """Calls like the model it was captured from, with the same result in evaluation mode.

    In training, batch norm measures a layer's currents over all steps at once, where a
    loop over time would measure each step by itself.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.model, self.graph = model, graph
        if graph.input_layout == "step":
            raise CaptureError("the model does one step per call; there is no time to run over at once")
        self.groups = tuple(_ordered_groups(graph))

    def __call__(self, x: Tensor) -> Tensor:
        """The model's output for a whole input."""
        x = self.graph.time_first(x)
        if self.graph.input_layout != "static" and x.shape[0] != self.graph.steps:
            raise DataError(f"the graph was captured over {self.graph.steps} steps, the input has {x.shape[0]}")
        values: Values = {"input": x}
        for group in self.groups:
            if group[0].name in values:  # a state, which its neuron gave
                continue
            if len(group) == 1 and not _reads_itself(group[0]):
                values[group[0].name] = self.whole(group[0], values)
            else:
                self.stepwise(group, values)
        return self.reading(values)

    def fits(self, x: Tensor) -> bool:
        """Whether an input has the number of steps that was captured."""
        if self.graph.input_layout == "batch_merged":
            return x.shape[0] % self.graph.steps == 0
        axis = {"static": None, "time_first": 0, "batch_first": 1}[self.graph.input_layout]
        return axis is None or x.shape[axis] == self.graph.steps

    def whole(self, node: GraphNode, values: Values) -> Tensor:
        """One node over all steps."""
        if node.kind == "input":
            return values["input"]
        inputs = [self.aligned(edge, node, values) for edge in node.inputs]
        module = self.model.get_submodule(node.path) if node.kind == "module" else None
        if isinstance(module, NeuronLayer):
            x = inputs[0]
            x = x if self.has_time(node.inputs[0]) else x.unsqueeze(0).expand(self.graph.steps, *x.shape)
            return self.neurons(node, module, x, values)
        if hasattr(module, "step_mode"):  # a layer that merges time and batch by itself
            assert module is not None
            with _multi_step(module):
                train: Tensor = module(inputs[0] if node.per_step else inputs[0].unsqueeze(0))
            return train if node.per_step else train.squeeze(0)
        if isinstance(module, ENCODERS) or not node.per_step:
            return _apply(node, module, inputs, lead=1)
        steps, batch = inputs[0].shape[:2]
        merged = [x.flatten(0, 1) for x in inputs]
        flat = _apply(node, module, merged, lead=1)
        apart: Tensor = flat.unflatten(0, (steps, batch))  # type: ignore[no-untyped-call]
        return apart

    def neurons(self, node: GraphNode, module: NeuronLayer, x: Tensor, values: Values) -> Tensor:
        """A neuron layer over all steps, and the states of it that something reads."""
        states = [n for n in self.graph.consumers(node.name) if n.kind == "state"]
        kept = module.watch
        with _multi_step(module):
            if states and kept is None:
                module.watch = []
            module.reset()
            output: Tensor = module(x)
            module.reset()
        seen = module.watch or []
        module.watch = kept
        for state in states:
            name = state.options["state"]
            values[state.name] = torch.stack([module.in_real_units({name: s[name]})[name] for s in seen[-len(x) :]])
        return output

    def has_time(self, edge: GraphEdge) -> bool:
        """Whether the value of an edge has a time axis."""
        return edge.delay > 0 or self.graph.node(edge.source).per_step

    def aligned(self, edge: GraphEdge, node: GraphNode, values: Values) -> Tensor:
        """The value of an edge, delayed, and spread over time where the node needs it."""
        value = values[edge.source]
        has_time = self.graph.node(edge.source).per_step
        if edge.delay and not has_time:
            value, has_time = value.unsqueeze(0).expand(self.graph.steps, *value.shape), True
        value = delayed(value, edge.delay) if edge.delay else value
        module = self.model.get_submodule(node.path) if node.kind == "module" else None
        if node.per_step and not has_time and not isinstance(module, (*STATEFUL, *ENCODERS)):
            value = value.unsqueeze(0).expand(self.graph.steps, *value.shape)
        return value

    def stepwise(self, group: Sequence[GraphNode], values: Values) -> None:
        """A recurrent part: one step of all its nodes after the other."""
        trains: dict[str, list[Tensor]] = {node.name: [] for node in group}
        neurons = [self.model.get_submodule(n.path) for n in group if n.kind == "module"]
        # One view a step, made once: the gradient of x[t] fills a tensor of all steps, T times.
        read = {edge.source for node in group for edge in node.inputs} - trains.keys()
        outside = {name: apart(values[name]) for name in read if self.graph.node(name).per_step}
        with _single_step([m for m in neurons if isinstance(m, STATEFUL)]):
            for t in range(self.graph.steps):
                for node in group:
                    inputs = [self.at(edge, t, trains, outside, values) for edge in node.inputs]
                    module = self.model.get_submodule(node.path) if node.kind == "module" else None
                    value = _apply(node, module, inputs, lead=1)
                    if node.kind == "state":
                        layer = self.layer(node)
                        value = layer.in_real_units(layer.state or {})[node.options["state"]]
                    trains[node.name].append(value)
        values.update({name: stacked(parts) for name, parts in trains.items()})

    def layer(self, node: GraphNode) -> NeuronLayer:
        """The neuron layer behind a node."""
        module = self.model.get_submodule(node.path)
        assert isinstance(module, NeuronLayer)
        return module

    def at(
        self,
        edge: GraphEdge,
        t: int,
        trains: Mapping[str, Sequence[Tensor]],
        outside: Mapping[str, Sequence[Tensor]],
        values: Values,
    ) -> Tensor:
        """The value of an edge at one step: of the part itself so far (`trains`), or from before it, step by step."""
        if edge.source in trains:
            if t >= edge.delay:
                return trains[edge.source][t - edge.delay]
            batch = values["input"].shape[0 if self.graph.input_layout == "static" else 1]
            return values["input"].new_zeros(batch, *self.graph.node(edge.source).shape)
        if edge.source not in outside:
            return values[edge.source]
        steps = outside[edge.source]
        return steps[t - edge.delay] if t >= edge.delay else torch.zeros_like(steps[0])

    def reading(self, values: Values) -> Tensor:
        """The reduction over time that the model's own code does."""
        output = self.graph.output
        value = values[output.source]
        if not self.graph.node(output.source).per_step:
            value = value.unsqueeze(0).expand(self.graph.steps, *value.shape)
        if output.reduction == "train":
            return self.graph.as_answered(value if output.factor == 1.0 else value * output.factor)
        reductions: dict[str, Callable[..., Tensor]] = {"sum": value.sum, "mean": value.mean, "max": value.amax}
        reduced = reductions.get(output.reduction)
        result = value[-1] if reduced is None else reduced(dim=0)
        return result if output.factor == 1.0 else result * output.factor


def _apply(node: GraphNode, module: nn.Module | None, inputs: list[Tensor], *, lead: int) -> Tensor:
    """What a node computes on ``[N, ...]`` values."""
    if module is not None:
        output: Tensor = module(inputs[0])
        return output
    first = inputs[0]
    if node.kind == "state":
        return first
    if node.kind == "reshape":
        return first.reshape(*first.shape[:lead], *node.shape)
    if node.kind == "concat":
        return torch.cat(inputs, dim=lead + node.options["axis"])
    if node.kind == "pool":
        return _pool(first, dict(node.options))
    if node.kind == "iand":
        return (1 - first) * inputs[1]
    for other in inputs[1:]:
        if node.kind == "add":
            first = first + other
        else:
            first = first * other if node.kind == "product" else torch.maximum(first, other)
    return first


def _pool(x: Tensor, options: dict[str, Any]) -> Tensor:
    name = options.pop("name")
    one = x.dim() == 3
    if name == "max":
        pooled: Tensor = F.max_pool1d(x, **options) if one else F.max_pool2d(x, **options)
        return pooled
    if "dilation" in options:  # the fourth positional argument of avg_pool is ceil_mode
        options["ceil_mode"] = options.pop("dilation")
    return F.avg_pool1d(x, **options) if one else F.avg_pool2d(x, **options)


@contextmanager
def _multi_step(module: Any) -> Iterator[None]:
    """All steps in one call, without the conventions of the library that a layer came from."""
    kept, module.step_mode = module.step_mode, "m"
    with _plain([module]):
        try:
            yield
        finally:
            module.step_mode = kept


@contextmanager
def _single_step(modules: Sequence[Any]) -> Iterator[None]:
    kept = [m.step_mode for m in modules]
    for module in modules:
        module.reset()
        module.step_mode = "s"
    with _plain(modules):
        try:
            yield
        finally:
            for module, mode in zip(modules, kept, strict=True):
                module.step_mode = mode
                module.reset()


@contextmanager
def _plain(modules: Sequence[Any]) -> Iterator[None]:
    kept = [(m, m.dialect) for m in modules if isinstance(m, NeuronLayer)]
    for module, _ in kept:
        module.dialect = None
    try:
        yield
    finally:
        for module, dialect in kept:
            module.dialect = dialect


def _reads_itself(node: GraphNode) -> bool:
    return any(edge.source == node.name for edge in node.inputs)


def _ordered_groups(graph: Graph) -> Iterator[tuple[GraphNode, ...]]:
    """Strongly connected parts in topological order (Tarjan 1972); inside a part the graph's own order."""
    order = {node.name: k for k, node in enumerate(graph.nodes)}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    parts: list[tuple[GraphNode, ...]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for edge in graph.node(name).inputs:
            if edge.source not in index:
                visit(edge.source)
                low[name] = min(low[name], low[edge.source])
            elif edge.source in stack:
                low[name] = min(low[name], index[edge.source])
        if low[name] == index[name]:
            cut = stack.index(name)
            members = sorted(stack[cut:], key=order.__getitem__)
            del stack[cut:]
            parts.append(tuple(graph.node(m) for m in members))

    for node in graph.nodes:
        if node.name not in index:
            visit(node.name)
    return iter(parts)

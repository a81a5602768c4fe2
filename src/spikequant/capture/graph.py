"""The captured graph: what `capture` finds and everything behind it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from spikequant.law.errors import CaptureError

NodeKind = Literal["input", "module", "add", "product", "iand", "maximum", "concat", "reshape", "pool", "state"]
Reduction = Literal["train", "sum", "mean", "last", "max"]


@dataclass(frozen=True)
class GraphEdge:
    """The value of `source`, `delay` steps ago; zero before the first step."""

    source: str
    delay: int = 0


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """One node, with the shape of its value for one sample and step.

    A node of the kind ``state`` is a stored state (``options["state"]``) of the neuron that it reads.

    ``per_step`` is False where the value is the same at every step (a static input and
    what is computed from it alone).
    """

    name: str
    kind: NodeKind
    inputs: tuple[GraphEdge, ...]
    shape: tuple[int, ...]
    per_step: bool
    path: str = ""
    site: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Output:
    """How the model's result is read from a node: a reduction over time, then a factor."""

    source: str
    reduction: Reduction
    factor: float = 1.0
    layout: Literal["time_first", "batch_first", "batch_merged"] = "time_first"
    """Of a train: ``[T, N, ...]``, ``[N, T, ...]`` or ``[N * T, ...]``."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A model as a graph over its modules.

    Attributes:
        nodes: in topological order of the edges without delay.
        output: how the result is read.
        steps: time steps of the recorded pass.
        input_layout: ``static`` ``[N, ...]``, ``time_first`` ``[T, N, ...]``, ``batch_first``
            ``[N, T, ...]``, ``batch_merged`` ``[N * T, ...]`` or ``step`` (the caller loops over
            time and calls the model per step).
    """

    nodes: tuple[GraphNode, ...]
    output: Output
    steps: int
    input_layout: Literal["static", "time_first", "batch_first", "batch_merged", "step"]

    def node(self, name: str) -> GraphNode:
        """The node called `name`."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise CaptureError(f"no node {name!r} in the captured graph")

    def consumers(self, name: str) -> tuple[GraphNode, ...]:
        """The nodes that read `name`."""
        return tuple(n for n in self.nodes if any(e.source == name for e in n.inputs))

    def time_first(self, x: Tensor) -> Tensor:
        """An input of the model as ``[T, N, ...]``; a static one, and one of a single step, as they are."""
        if self.input_layout == "batch_merged":
            apart: Tensor = x.unflatten(0, (-1, self.steps))  # type: ignore[no-untyped-call]
            return apart.transpose(0, 1)
        return x.transpose(0, 1) if self.input_layout == "batch_first" else x

    def as_answered(self, train: Tensor) -> Tensor:
        """A train ``[T, N, ...]`` in the layout in which the model gives it."""
        if self.output.layout == "time_first":
            return train
        swapped = train.transpose(0, 1)
        return swapped if self.output.layout == "batch_first" else swapped.flatten(0, 1)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The modules of the graph by path, as they are in `model` now."""
        return {n.path: model.get_submodule(n.path) for n in self.nodes if n.kind == "module"}

"""Nodes of a network as ONNX nodes: what a layer makes of its inputs in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spikequant.law.bounds import Interval
from spikequant.law.network import InputNode, IntNet, JoinNode, MatmulNode, NeuronNode, Node, PoolNode, SynapseNode
from spikequant.law.widths import network_ranges, with_start
from spikequant.readers.emit import Program, record_join
from spikequant.readers.onnx_.graph import INT64, Graph, Value, kind_for, unique_names
from spikequant.readers.onnx_.step import StepPrinter
from spikequant.readers.onnx_.sums import Range, write_matmul, write_pool, write_synapse


@dataclass(frozen=True, eq=False)
class Plan:
    """What printing needs to know of a network: proven ranges and plain names."""

    net: IntNet
    ranges: Mapping[str, Interval]
    names: Mapping[str, str]

    def span(self, name: str, *, with_zero: bool = False) -> Range:
        """Smallest and largest value of a node."""
        low, high = int(np.min(self.ranges[name].low)), int(np.max(self.ranges[name].high))
        return (min(low, 0), max(high, 0)) if with_zero else (low, high)

    def kind(self, name: str) -> str:
        """Element type in which a node's value is stored between steps."""
        return kind_for(*self.span(name, with_zero=True), name)

    def sources(self, node: Node) -> list[Interval]:
        """Ranges of a node's inputs, with the zeros before the first step."""
        return [with_start(self.ranges[edge.source], edge.delay) for edge in node.inputs]

    def spans(self, node: Node) -> list[Range]:
        """Smallest and largest value of each input."""
        return [(int(np.min(s.low)), int(np.max(s.high))) for s in self.sources(node)]

    def shapes(self, node: Node) -> list[tuple[int, ...]]:
        """Shapes of the inputs."""
        return [self.net.node(edge.source).shape for edge in node.inputs]


def plan(net: IntNet) -> Plan:
    """Prove the ranges and choose the names."""
    return Plan(net, network_ranges(net), unique_names([node.name for node in net.nodes]))


def state_kind(node: NeuronNode, state: str) -> str:
    """Element type of a stored state."""
    fmt = node.spec.state_formats()[state]
    assert fmt is not None
    return kind_for(fmt.min, fmt.max, f"state {state} of {node.name}")


def write_neuron(
    graph: Graph,
    node: NeuronNode,
    program: Program,
    sources: Sequence[Value],
    given: Mapping[str, Value],
) -> tuple[dict[str, Value], Value]:
    """The law's recorded step: ``(new states, output)``; `given` holds states, ``noise_*`` and ``tick`` by name."""
    inputs = {**given, **{f"x{k}": source for k, source in enumerate(sources)}}
    kinds = {name: state_kind(node, name) for name in node.spec.state_formats()}
    kinds["out"] = kind_for(0, node.spec.spikes_max)
    printer = StepPrinter(graph)
    results: dict[str, Value] = {}
    for name, (term, _) in printer.outputs(program, inputs).items():
        results[name] = as_full(graph, printer.at(term, kinds[name]), sources[0])
    output = results.pop("out") if node.spec.output == "spike" else results["v"]
    return results, output


def as_full(graph: Graph, value: Value, like: Value) -> Value:
    """`value` for every sample and neuron, where it is the same for all."""
    return value if value.full else graph.op("Expand", value, graph.op("Shape", like, kind=INT64), kind=value.kind)


def write_value(graph: Graph, about: Plan, node: Node, sources: Sequence[Value]) -> Value:
    """The value of a node that has no state."""
    spans, shapes = about.spans(node), about.shapes(node)
    if isinstance(node, SynapseNode):
        return write_synapse(graph, node, sources[0], shapes[0], spans[0])
    if isinstance(node, PoolNode):
        return write_pool(graph, node, sources[0], shapes[0], spans[0])
    if isinstance(node, MatmulNode):
        return write_matmul(graph, node, sources[0], sources[1], (spans[0], spans[1]), shapes[0][-1])
    if isinstance(node, JoinNode):
        return _concat(graph, about, node, sources) if node.kind == "concat" else _join(graph, about, node, sources)
    assert not isinstance(node, (InputNode, NeuronNode))
    return graph.op("Reshape", sources[0], graph.const(np.array([0, *node.shape])))


def _join(graph: Graph, about: Plan, node: JoinNode, sources: Sequence[Value]) -> Value:
    program = record_join(node, about.sources(node))
    printer = StepPrinter(graph)
    term, _ = printer.outputs(program, {f"x{k}": s for k, s in enumerate(sources)})["out"]
    return as_full(graph, printer.at(term, kind_for(term.low, term.high)), sources[0])


def _concat(graph: Graph, about: Plan, node: JoinNode, sources: Sequence[Value]) -> Value:
    kind = about.kind(node.name)
    parts = []
    for source, gain in zip(sources, node.gains, strict=True):
        part = graph.cast(source, kind)
        parts.append(graph.op("Mul", part, graph.const(gain, kind)) if gain != 1 else part)
    return graph.op("Concat", *parts, axis=node.axis + 1)

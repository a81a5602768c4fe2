"""One time step of a network in a graph: values, states, delay lines, decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.network import Edge, InputNode, NeuronNode
from spikequant.readers.emit import record
from spikequant.readers.onnx_.graph import BOOL, INT64, Graph, Value, kind_for
from spikequant.readers.onnx_.nodes import Plan, state_kind, write_neuron, write_value

MOST_STEPS = 2**20
"""Scores that add up over time are wide enough for this many steps (the most that a network may have)."""


@dataclass(frozen=True)
class Port:
    """A tensor that enters or leaves: ``shape`` without the batch axis; None for one number per model."""

    name: str
    kind: str
    shape: tuple[int, ...] | None


@dataclass
class Step:
    """What one step reads and gives, by port.

    ``states`` pairs what is read with what the next step reads; all states start at 0.
    ``noise`` are words of rounding noise, ``(neuron node, state, port)``; ``trace`` shows what every neuron layer has.
    """

    x: Port
    scores: tuple[Port, Value] = field(init=False)
    states: list[tuple[Port, Value]] = field(default_factory=list)
    noise: list[tuple[str, str, Port]] = field(default_factory=list)
    trace: list[tuple[str, str, Port, Value]] = field(default_factory=list)


def input_port(about: Plan) -> Port:
    """The network's input codes."""
    node = about.net.input
    return Port("x", about.kind(node.name), node.shape)


class StepWriter:
    """Writes one step into a graph; `known` are values of an outer graph that never change."""

    def __init__(self, graph: Graph, about: Plan, known: Mapping[str, Value] | None = None) -> None:
        self.graph, self.about, self.net = graph, about, about.net
        self.values: dict[str, Value] = dict(known or {})
        self.new_states: dict[str, dict[str, Value]] = {}
        self.past: dict[str, Value] = {}
        self.late: dict[tuple[str, int], Value] = {}
        self.time: Value | None = None
        self.step = Step(input_port(about))

    def write(self, *, keep_last: bool = False) -> Step:
        """All nodes in order, delay lines, decoder; `keep_last` makes the score of a last step a state."""
        for node in self.net.nodes:
            self.graph.scope = self.about.names[node.name]
            if node.name in self.values:
                continue
            if isinstance(node, InputNode):
                self.values[node.name] = self._given(self.step.x.name, self.step.x.kind)
                continue
            sources = [self.edge(edge) for edge in node.inputs]
            if isinstance(node, NeuronNode):
                self._neuron(node, sources)
            else:
                self.values[node.name] = write_value(self.graph, self.about, node, sources)
        self._delay_lines()
        self.graph.scope = "decoder"
        self._decode(keep_last)
        if self.time is not None:
            one = self.graph.const(1)
            self.step.states.append((Port("time", INT64, None), self.graph.op("Add", self.time, one)))
        self.graph.scope = ""
        return self.step

    def _given(self, name: str, kind: str, *, full: bool = True) -> Value:
        """What enters the graph under a port's name."""
        return Value(self.graph.prefix + name, kind, full)

    def edge(self, edge: Edge) -> Value:
        """The value that an edge carries in this step."""
        if edge.delay == 0:
            return self.values[edge.source]
        key = (edge.source, edge.delay)
        if key not in self.late:
            index = self.graph.const(edge.delay - 1)
            self.late[key] = self.graph.op("Gather", self._line(edge.source), index, axis=1)
        return self.late[key]

    def _line(self, source: str) -> Value:
        """The delay line behind a node, newest first: ``[N, depth, ...]``."""
        if source not in self.past:
            self.past[source] = self._given(f"past.{self.about.names[source]}", self.about.kind(source))
        return self.past[source]

    def _delay_lines(self) -> None:
        graph, net = self.graph, self.net
        for source, line in self.past.items():
            graph.scope = self.about.names[source]
            depth = max(e.delay for node in net.nodes for e in node.inputs if e.source == source)
            newest = graph.cast(self.values[source], line.kind)
            newest = graph.op("Unsqueeze", newest, graph.const(np.array([1])))
            if depth > 1:
                span = (graph.const(np.array([k])) for k in (0, depth - 1, 1))
                newest = graph.op("Concat", newest, graph.op("Slice", line, *span), axis=1)
            port = Port(f"past.{self.about.names[source]}", line.kind, (depth, *net.node(source).shape))
            self.step.states.append((port, newest))

    def _neuron(self, node: NeuronNode, sources: list[Value]) -> None:
        own = self.about.names[node.name]
        ports = {s: Port(f"state.{own}.{s}", state_kind(node, s), node.shape) for s in node.spec.state_formats()}
        given = {name: self._given(port.name, port.kind) for name, port in ports.items()}
        program = record(node, self.about.sources(node))
        for state in (n.removeprefix("noise_") for n in program.inputs if n.startswith("noise_")):
            port = Port(f"noise.{own}.{state}", INT64, node.shape)
            self.step.noise.append((node.name, state, port))
            given[f"noise_{state}"] = self._given(port.name, INT64)
        if node.spec.adapt_every > 1 and node.spec.has_adaptation:
            given["tick"] = self._tick(node.spec.adapt_every)
        new, output = write_neuron(self.graph, node, program, sources, given)
        self.new_states[node.name], self.values[node.name] = new, output
        for name, value in new.items():
            self.step.states.append((ports[name], value))
            self.step.trace.append((node.name, name, ports[name], value))
        if node.spec.output == "spike":
            self.step.trace.append((node.name, "out", Port(f"spikes.{own}", output.kind, node.shape), output))

    def _clock(self) -> Value:
        if self.time is None:
            self.time = self._given("time", INT64, full=False)
        return self.time

    def _tick(self, every: int) -> Value:
        """Whether an adaptive threshold decays in this step."""
        count = self.graph.op("Add", self._clock(), self.graph.const(1))
        rest = self.graph.op("Mod", count, self.graph.const(every))
        return self.graph.op("Equal", rest, self.graph.const(0), kind=BOOL)

    def _decode(self, keep_last: bool) -> None:
        decoder, graph = self.net.decoder, self.graph
        value, span, shape = self._decoded()
        most = 1 if decoder.gains is None else int(np.abs(decoder.gains).max(initial=0))
        adds_up = decoder.name in ("spike_count", "membrane_sum")
        reach = max(-span[0], span[1]) * most
        steps = min(MOST_STEPS, (2**63 - 1) // max(reach, 1)) if adds_up else 1
        if adds_up and steps < self.net.steps:
            raise Unsupported(f"{decoder.source}: scores that add up for {self.net.steps} steps need more than 64 bits")
        kind = kind_for(-reach * steps, reach * steps, f"the decoder of {decoder.source}")
        scores = graph.cast(value, kind)
        if decoder.gains is not None:
            scores = graph.op("Mul", scores, graph.const(decoder.gains, kind))
        port, before = Port("state.scores", kind, shape), self._given("state.scores", kind)
        if adds_up:
            scores = graph.op("Add", before, scores)
        elif decoder.name == "membrane_max":
            first = graph.op("Equal", self._clock(), graph.const(0), kind=BOOL)
            scores = graph.op("Where", first, scores, graph.maximum(before, scores), kind=kind)
        if adds_up or decoder.name == "membrane_max" or (keep_last and decoder.name == "membrane_last"):
            self.step.states.append((port, scores))
        self.step.scores = (Port("scores", kind, shape), scores)

    def _decoded(self) -> tuple[Value, tuple[int, int], tuple[int, ...]]:
        """What the decoder reads, its range and shape: a node's value, or the stored membrane of a neuron layer."""
        decoder = self.net.decoder
        node = self.net.node(decoder.source)
        if not (decoder.name.startswith("membrane") and isinstance(node, NeuronNode)):
            return self.values[node.name], self.about.span(node.name, with_zero=True), node.shape
        fmt = node.spec.state_formats()["v"]
        assert fmt is not None
        return self.new_states[node.name]["v"], (fmt.min, fmt.max), node.shape

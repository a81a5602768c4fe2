"""The plain NIR graph of an integer network: the same network over real numbers, with primitives of NIR alone.

A value of the integer network is ``code * unit``; a layer of weights holds ``codes * gain *
lsb``, the gain and the LSB being those of the neuron that it feeds.  Where a value goes to
places that count in different units, a Scale stands before them.  A sum of inputs is several
edges into one node, as NIR has it; a delay is a Delay node, but a layer's own connection back to
itself after one step is written as NIR's readers expect it, as a plain circle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.network import (
    InputNode,
    IntNet,
    JoinNode,
    MatmulNode,
    NeuronNode,
    Node,
    PoolNode,
    ReshapeNode,
    SynapseNode,
)
from spikequant.law.widths import prove_network
from spikequant.readers.nir_.names import NodeNames
from spikequant.readers.nir_.neurons import PlainNeuron, Reals, plain_neuron
from spikequant.readers.nir_.records import NirNode, NirRecord
from spikequant.readers.nir_.units import Units, place_biases, rows_of

READOUTS = {"spike_count": "sum", "membrane_sum": "sum", "membrane_last": "last"}
DEFAULT_DT = 1e-3


@dataclass(frozen=True, eq=False)
class Term:
    """One part of a value: the node that gives it, its unit (one number, or one per neuron), and how late it is."""

    source: str
    unit: Reals
    delay: int = 0


@dataclass(frozen=True)
class PlainGraph:
    """The record of a plain graph, and what it says besides.

    Attributes:
        record: nodes, edges and metadata.
        names: node of the network -> node of the graph, where there is one.
        deviations: where the plain graph differs from the integers.
    """

    record: NirRecord
    names: dict[str, str]
    deviations: tuple[str, ...]


def plain_graph(net: IntNet, *, dt: float = DEFAULT_DT) -> PlainGraph:
    """The graph of a network at a step of `dt`.

    Raises:
        Unsupported: a node that NIR cannot express, by name and reason.
    """
    if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not math.isfinite(dt) or dt <= 0:
        raise Unsupported(f"dt = {dt!r}; expected a positive number, the length of one step in seconds")
    prove_network(net)  # a circle of sums without a neuron has no order
    writer = _Writer(net, float(dt))
    for node in net.nodes:
        writer.add(node)
    for node in net.nodes:
        writer.connect(node)
    score_scale = writer.finish()
    metadata: dict[str, Any] = {**writer.choices(), "steps": net.steps, "static_input": int(net.input.static)}
    metadata |= {"decoder": net.decoder.name, "score_scale": score_scale}
    record = NirRecord(nodes=writer.nodes, edges=tuple(writer.edges), metadata=metadata)
    return PlainGraph(record, dict(writer.names.given), writer.deviations())


def _refuse(node: Node, what: str) -> NoReturn:
    raise Unsupported(f"node {node.name} ({type(node).__name__}): NIR cannot express {what}")


def _one_unit(terms: tuple[Term, ...], *, scalar: bool) -> Reals:
    """The unit of several parts: theirs if it is the same, else 1 (and Scales make it so)."""
    first = terms[0].unit
    alike = all(t.unit.shape == first.shape and bool((t.unit == first).all()) for t in terms)
    return first if alike and (first.size == 1 or not scalar) else np.ones(())


@dataclass
class _Writer:
    """The graph while it is made: nodes first, then edges."""

    net: IntNet
    dt: float
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    names: NodeNames = field(default_factory=NodeNames)
    terms: dict[str, tuple[Term, ...]] = field(default_factory=dict)
    neurons: dict[str, PlainNeuron] = field(default_factory=dict)
    late: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.neurons = {node.name: plain_neuron(node, self.dt) for node in self.net.neurons}
        self.units = Units(self.net, self.neurons)
        self.biases = place_biases(self.net, self.units)

    # -- nodes -------------------------------------------------------------------------

    def add(self, node: Node) -> None:
        """The primitive of a node; weights are filled in when their input is known."""
        if isinstance(node, JoinNode):
            if node.kind != "add":
                _refuse(node, f"a join of the kind {node.kind!r}, only sums")
            return
        if isinstance(node, MatmulNode):
            _refuse(node, "a product of two activations")
        name = self.names.take(node.name)
        if isinstance(node, InputNode):
            self.nodes[name] = NirNode(kind="Input", fields={"shape": np.array(node.shape)})
            self.terms[node.name] = (Term(name, np.asarray(1.0 if node.scale is None else float(node.scale))),)
        elif isinstance(node, NeuronNode):
            made = self.neurons[node.name]
            fields = {key: np.broadcast_to(value, node.shape) for key, value in made.fields.items()}
            self.nodes[name] = NirNode(kind=made.kind, fields=fields)
            self.terms[node.name] = (Term(name, self.units.of_neuron(node)),)
        elif isinstance(node, SynapseNode):
            self.nodes[name] = NirNode(kind="Linear", fields={})
            self.terms[node.name] = (Term(name, self.units.of_synapse(node)),)
        elif isinstance(node, PoolNode):
            self.nodes[name] = _pool(node)
        else:
            self.nodes[name] = _flatten(node, self.net.node(node.inputs[0].source).shape)

    # -- edges -------------------------------------------------------------------------

    def given(self, node: Node, index: int) -> tuple[Term, ...]:
        """The parts of one input of a node."""
        edge = node.inputs[index]
        return tuple(Term(t.source, t.unit, t.delay + edge.delay) for t in self.parts(self.net.node(edge.source)))

    def parts(self, node: Node) -> tuple[Term, ...]:
        """What a node gives: a sum gives all of its parts, every other node its own value."""
        if node.name not in self.terms:
            if isinstance(node, JoinNode):
                found = [
                    Term(t.source, t.unit / gain, t.delay)
                    for k, gain in enumerate(node.gains)
                    for t in self.given(node, k)
                    if gain
                ]
                if not found:
                    _refuse(node, "a sum of nothing (its gains are 0)")
            else:
                unit = _one_unit(self.given(node, 0), scalar=False)
                found = [Term(self.names.given[node.name], self.units.through(node, unit))]
            self.terms[node.name] = tuple(found)
        return self.terms[node.name]

    def connect(self, node: Node) -> None:
        """The edges into a node."""
        if isinstance(node, (InputNode, JoinNode)):
            self.parts(node)
            return
        name = self.names.given[node.name]
        if isinstance(node, NeuronNode):
            for k in range(len(node.inputs)):
                for term in self.given(node, k):
                    self.join(term, name, self.units.need(node, k), node)
            return
        terms = self.given(node, 0)
        unit = _one_unit(terms, scalar=isinstance(node, SynapseNode))
        for term in terms:
            self.join(term, name, unit, node)
        if isinstance(node, SynapseNode):
            self.nodes[name] = self._weights(node, float(unit))

    def join(self, term: Term, target: str, need: Reals, node: Node) -> None:
        """An edge, with a Delay where it is late and a Scale where the units differ."""
        source = term.source
        if term.delay and not self._is_own_circle(term, node):
            source = self._delayed(term)
        factor = need / term.unit
        if not bool((np.abs(factor - 1) < 1e-12).all()):
            name = self.names.fresh(f"{source}_to_{target}", self.names.origin[term.source])
            shape = self._shape_of(term.source)
            self.nodes[name] = NirNode(kind="Scale", fields={"scale": np.broadcast_to(factor, shape)})
            self.edges += [(source, name), (name, target)]
        elif (source, target) in self.edges:
            _refuse(node, f"an input that is there twice ({source})")
        else:
            self.edges.append((source, target))

    def _delayed(self, term: Term) -> str:
        key = (term.source, term.delay)
        if key not in self.late:
            name = self.names.fresh(f"{term.source}_delay{term.delay}", self.names.origin[term.source])
            shape = self._shape_of(term.source)
            self.nodes[name] = NirNode(kind="Delay", fields={"delay": np.full(shape, term.delay * self.dt)})
            self.edges.append((term.source, name))
            self.late[key] = name
        return self.late[key]

    def _is_own_circle(self, term: Term, node: Node) -> bool:
        """Whether an edge of delay 1 lies on the circle neuron -> weights -> the same neuron, one step in all."""
        other = self.net.node(self.names.origin[term.source])
        synapse, neuron = (node, other) if isinstance(node, SynapseNode) else (other, node)
        if term.delay != 1 or not isinstance(synapse, SynapseNode) or not isinstance(neuron, NeuronNode):
            return False
        into, back = synapse.inputs[0], [e for e in neuron.inputs if e.source == synapse.name]
        alone = len(self.units.users[synapse.name]) == len(back) == 1
        return alone and into.source == neuron.name and into.delay + back[0].delay == 1

    def _shape_of(self, name: str) -> tuple[int, ...]:
        return self.net.node(self.names.origin[name]).shape

    def _weights(self, node: SynapseNode, unit: float) -> NirNode:
        product, codes = node.product, node.product.codes.astype(np.float64)
        if bool(np.any(product.pad_code)):
            _refuse(node, "a border that is filled with the code of zero instead of 0")
        rows = rows_of(self.units.of_synapse(node), node.shape)
        fields: dict[str, Any] = {"weight": codes * rows.reshape(-1, *([1] * (codes.ndim - 1))) / unit}
        bias = self.biases.get(node.name)
        if product.kind == "linear":
            if len(node.shape) != 1:
                _refuse(node, f"a linear layer on inputs with several axes (it gives {node.shape})")
            return NirNode(
                kind="Linear" if bias is None else "Affine", fields=fields | ({} if bias is None else {"bias": bias})
            )
        fields |= {"bias": np.zeros(len(codes)) if bias is None else bias, "groups": np.array(product.groups)}
        space = self.net.node(node.inputs[0].source).shape[1:]
        sizes = {
            "stride": product.stride,
            "padding": product.padding,
            "dilation": product.dilation,
            "input_shape": space,
        }
        fields |= {key: np.array(value if len(value) == 2 else value[0]) for key, value in sizes.items()}
        return NirNode(kind=f"Conv{len(space)}d", fields=fields)

    # -- the end -----------------------------------------------------------------------

    def finish(self) -> float:
        """The Output; gives the factor from its scores to the network's, where that is one number."""
        decoder, node = self.net.decoder, self.net.node(self.net.decoder.source)
        spikes = isinstance(node, NeuronNode) and node.spec.output == "spike"
        if decoder.name.startswith("membrane") and spikes:
            _refuse(node, f"an output that is the membrane of a neuron that spikes ({decoder.name})")
        terms, name = self.parts(node), self.names.fresh("output", node.name)
        unit = _one_unit(terms, scalar=False)
        worth = np.asarray(1 if decoder.gains is None else decoder.gains, dtype=np.float64) * decoder.scale
        factor = worth / unit
        even = bool((factor == factor.flat[0]).all()) or bool((np.abs(factor / factor.flat[0] - 1) < 1e-6).all())
        self.nodes[name] = NirNode(kind="Output", fields={"shape": np.array(node.shape)})
        for term in terms:
            self.join(term, name, unit if even else worth, node)
        return float(factor.flat[0]) if even else 1.0

    def choices(self) -> dict[str, Any]:
        """What `spikequant.from_nir` must know to run the graph as it was meant."""
        found: dict[str, Any] = {"dt": self.dt, "integrator": "euler", "compare": ">"}
        for word in ("reset", "current"):
            said: dict[str, str] = {}
            for name, made in self.neurons.items():
                if getattr(made, word) is not None:
                    said.setdefault(getattr(made, word), name)
            if len(said) > 1:
                (a, first), (b, second) = list(said.items())[:2]
                node = self.net.node(second)
                _refuse(node, f"{word} = {b!r} here and {a!r} in {first}; a graph has one {word}")
            found |= {word: next(iter(said))} if said else {}
        return found

    def deviations(self) -> tuple[str, ...]:
        """Every kind of deviation with the nodes that it is about."""
        by_text: dict[str, list[str]] = {"values are real numbers: nothing is rounded, saturated or wrapped": []}
        for name, made in self.neurons.items():
            for text in made.deviations:
                by_text.setdefault(text, []).append(name)
        if self.net.input.scale is not None:
            by_text["the input is taken as it is, not rounded to codes"] = []
        if self.net.input.static:
            by_text[f"the input stands still: show the same values at each of {self.net.steps} steps"] = []
        if self.net.decoder.name not in READOUTS and not self.net.decoder.name.endswith("_train"):
            by_text[f"the output is a train; the decoder {self.net.decoder.name} is left to the reader"] = []
        return tuple(f"{text}{' (' + ', '.join(names) + ')' if names else ''}" for text, names in by_text.items())


def _pool(node: PoolNode) -> NirNode:
    if node.kind != "sum" or len(node.kernel) != 2:
        _refuse(node, f"a {node.kind} over {len(node.kernel)}-dimensional windows, only sums over images")
    window = {"kernel_size": node.kernel, "stride": node.stride, "padding": node.padding}
    return NirNode(kind="SumPool2d", fields={key: np.array(value) for key, value in window.items()})


def _flatten(node: ReshapeNode, got: tuple[int, ...]) -> NirNode:
    if len(node.shape) != 1:
        _refuse(node, f"a change of shape from {got} to {node.shape}, only to a flat one")
    fields = {"input_type": np.array(got), "start_dim": np.array(0), "end_dim": np.array(-1)}
    return NirNode(kind="Flatten", fields=fields)

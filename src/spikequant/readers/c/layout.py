"""Where every value of a network lives in the C program: buffers, orders of axes, delays, shared memory.

Neuron states, spikes, values of static inputs and what delayed edges need are members of the state struct.  Input
sums and other values of one step share memory (``slots``) when they are not needed at the same time.  Behind a
convolution the channel is the last axis, so that sums over output channels are contiguous; the next fully connected
layer has its weights permuted, and nobody pays for it at run time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from spikequant.law.bounds import Interval
from spikequant.law.formats import IntArray
from spikequant.law.network import (
    Edge,
    InputNode,
    IntNet,
    JoinNode,
    NeuronNode,
    Node,
    PoolNode,
    ReshapeNode,
    SynapseNode,
)
from spikequant.law.widths import network_ranges
from spikequant.readers.c.types import UINT32, CType, holds
from spikequant.readers.golden import static_nodes
from spikequant.readers.names import stem


@dataclass(frozen=True)
class Member:
    """An array (or a scalar, `count` 0) of the state struct; `layer` is the node it is counted for."""

    name: str
    ctype: CType
    count: int
    layer: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.ctype.bytes * max(self.count, 1)

    @property
    def text(self) -> str:
        """Its declaration."""
        return f"{self.ctype.name} {self.name}" + (f"[{self.count}];" if self.count else ";")


@dataclass(frozen=True)
class Value:
    """What a node gives in one step: type, order of axes, and where it is kept."""

    node: Node
    ctype: CType
    last: bool
    place: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape."""
        return self.node.shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.node.shape)

    def at(self, coordinates: list[str]) -> str:
        """Index of an element by its logical coordinates."""
        shape = list(self.shape)
        if self.last:
            coordinates, shape = [*coordinates[1:], coordinates[0]], [*shape[1:], shape[0]]
        index = coordinates[0]
        for axis, coordinate in zip(shape[1:], coordinates[1:], strict=True):
            index = f"({index} * {axis} + {coordinate})" if index != "0" else coordinate
        return index

    def order(self) -> IntArray:
        """Logical flat index of every element in the order of memory."""
        flat = np.arange(self.size, dtype=np.int64).reshape(self.shape)
        return np.moveaxis(flat, 0, -1).reshape(-1) if self.last else flat.reshape(-1)


@dataclass
class Layout:
    """The plan of one network's memory."""

    net: IntNet
    ranges: dict[str, Interval]
    constant: set[str]
    values: dict[str, Value] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    slots: list[list[Member]] = field(default_factory=list)
    depth: dict[str, int] = field(default_factory=dict)
    index: dict[str, int] = field(default_factory=dict)
    alias: dict[str, Edge] = field(default_factory=dict)

    def resolve(self, edge: Edge) -> Edge:
        """The edge from the node whose memory holds the value: reshapes that copy nothing are skipped."""
        while edge.source in self.alias:
            behind = self.alias[edge.source]
            edge = Edge(behind.source, behind.delay + edge.delay)
        return edge

    def is_direct(self, edge: Edge, consumer: Node) -> bool:
        """Whether a delay of 1 needs no copy: its reader runs before the value is replaced."""
        source = self.net.node(edge.source)
        earlier = self.index[consumer.name] <= self.index[edge.source]
        return edge.delay == 1 and earlier and edge.source not in self.constant and not isinstance(source, InputNode)

    def name(self, node: Node) -> str:
        """Stem of a node's symbols."""
        return f"n{stem(self.index[node.name], node.name)}"

    def read(self, edge: Edge, consumer: Node) -> tuple[str, Value]:
        """Pointer expression of what `consumer` reads, and the value in the shape that it sees."""
        held = self.resolve(edge)
        value = self.values[held.source]
        seen = Value(self.net.node(edge.source), value.ctype, value.last, value.place)
        if held.delay == 0 or self.is_direct(held, consumer):
            return value.place, seen
        name, depth = self.name(value.node), self.depth[held.source]
        return f"s->{name}_past + (s->{name}_at + {depth - held.delay}u) % {depth}u * {value.size}u", seen

    def low_high(self, name: str, *, with_zero: bool = False) -> tuple[int, int]:
        """Smallest and largest value of a node."""
        low, high = int(np.min(self.ranges[name].low)), int(np.max(self.ranges[name].high))
        return (min(low, 0), max(high, 0)) if with_zero else (low, high)


def plan(net: IntNet) -> Layout:
    """Decide where everything lives."""
    layout = Layout(net, network_ranges(net), static_nodes(net))
    layout.index = {node.name: k for k, node in enumerate(net.nodes)}
    last = _channel_last(net)
    _find_aliases(layout, last)
    kept = _delays(layout)
    for node in net.nodes:
        if node.name not in layout.alias:
            layout.values[node.name] = _place(layout, node, last[node.name], node.name in kept)
    _share(layout)
    for name, depth in layout.depth.items():
        value, own = layout.values[name], layout.name(net.node(name))
        layout.members.append(Member(f"{own}_past", value.ctype, depth * value.size, name))
        layout.members.append(Member(f"{own}_at", UINT32, 0, name))
    return layout


def _channel_last(net: IntNet) -> dict[str, bool]:
    """Convolutions, and what follows them element by element or window by window."""
    last: dict[str, bool] = {}
    for node in net.nodes:
        first = node.inputs[0].source if node.inputs else ""
        follows = isinstance(node, NeuronNode) or (isinstance(node, JoinNode) and node.kind != "concat")
        follows = follows or (isinstance(node, PoolNode) and len(node.kernel) == len(node.shape) - 1)
        is_conv = isinstance(node, SynapseNode) and node.product.kind == "conv"
        last[node.name] = len(node.shape) > 1 and (is_conv or (follows and last.get(first, False)))
    return last


def _find_aliases(layout: Layout, last: dict[str, bool]) -> None:
    """A reshape shares its source's memory where no reader would notice the order of axes."""
    net = layout.net
    for node in net.nodes:
        if not isinstance(node, ReshapeNode):
            continue
        readers = [n for n in net.nodes if any(e.source == node.name for e in n.inputs)]
        flat_only = len(node.shape) == 1 and node.name != net.decoder.source
        only_linear = all(isinstance(n, SynapseNode) and n.product.kind == "linear" for n in readers)
        behind = layout.resolve(node.inputs[0])
        late = behind.delay > 0 and node.name == net.decoder.source  # the decoder reads values of this step
        if not late and (not last[behind.source] or (flat_only and only_linear)):
            layout.alias[node.name] = node.inputs[0]


def _delays(layout: Layout) -> set[str]:
    """Fill the depths of delay lines; the nodes whose last value must survive into the next step."""
    kept: set[str] = set()
    for node in layout.net.nodes:
        if node.name in layout.alias:
            continue
        for edge in map(layout.resolve, node.inputs):
            if edge.delay and layout.is_direct(edge, node):
                kept.add(edge.source)
            elif edge.delay:
                layout.depth[edge.source] = max(edge.delay, layout.depth.get(edge.source, 0))
    return kept


def _place(layout: Layout, node: Node, last: bool, kept: bool) -> Value:
    name = layout.name(node)
    if isinstance(node, NeuronNode):
        return _place_neuron(layout, node, last)
    sums = not isinstance(node, (InputNode, JoinNode, ReshapeNode))
    low, high = layout.low_high(node.name, with_zero=sums)
    ctype = holds(low, high, least=16, signed=True) if isinstance(node, SynapseNode) else holds(low, high)
    size = math.prod(node.shape)
    if isinstance(node, InputNode):
        if node.static and _input_outlives_the_first_step(layout):
            layout.members.append(Member(name, ctype, size, node.name))
            return Value(node, ctype, last, f"s->{name}")
        return Value(node, ctype, last, "x")
    if node.name in layout.constant or kept:
        layout.members.append(Member(name, ctype, size, node.name))
    return Value(node, ctype, last, f"s->{name}")


def _place_neuron(layout: Layout, node: NeuronNode, last: bool) -> Value:
    name, size, spec = layout.name(node), math.prod(node.shape), node.spec
    types = {}
    for state, fmt in spec.state_formats().items():
        assert fmt is not None
        high = spec.refractory if state == "r" else fmt.max
        types[state] = holds(fmt.min, high)
        layout.members.append(Member(f"{name}_{state}", types[state], size, node.name))
    if spec.output == "spike" and not spec.stores_spike:
        types["out"] = holds(0, spec.spikes_max)
        layout.members.append(Member(f"{name}_out", types["out"], size, node.name))
    if spec.adapt_every > 1 and spec.has_adaptation:
        layout.members.append(Member(f"{name}_wait", UINT32, 0, node.name))
    out = "v" if spec.output == "state" else "s" if spec.stores_spike else "out"
    return Value(node, types[out], last, f"s->{name}_{out}")


def _input_outlives_the_first_step(layout: Layout) -> bool:
    name = layout.net.input.name
    later = any(
        layout.resolve(e).source == name and node.name not in layout.constant
        for node in layout.net.nodes
        for e in node.inputs
        if node.name not in layout.alias
    )
    return later or layout.resolve(Edge(layout.net.decoder.source)).source == name


def _share(layout: Layout) -> None:
    """Give every value without a member of its own a slot that is free while it is needed."""
    taken = {member.name for member in layout.members}
    busy_until: list[int] = []
    for node in layout.net.nodes:
        value = layout.values.get(node.name)
        if value is None or value.place == "x" or value.place.removeprefix("s->") in taken:
            continue
        start, end = layout.index[node.name], _last_use(layout, node)
        free = next((k for k, until in enumerate(busy_until) if until < start), None)
        if free is None:
            free = len(busy_until)
            busy_until.append(0)
            layout.slots.append([])
        busy_until[free] = end
        name = layout.name(node)
        layout.slots[free].append(Member(name, value.ctype, value.size, node.name))
        layout.values[node.name] = Value(node, value.ctype, value.last, f"s->slot{free}.{name}")


def _last_use(layout: Layout, node: Node) -> int:
    uses = [layout.index[node.name]]
    for reader in layout.net.nodes:
        if reader.name not in layout.alias:
            uses += [
                layout.index[reader.name]
                for edge in map(layout.resolve, reader.inputs)
                if edge.source == node.name and edge.delay == 0
            ]
    if layout.resolve(Edge(layout.net.decoder.source)).source == node.name or node.name in layout.depth:
        return len(layout.net.nodes)
    return max(uses)

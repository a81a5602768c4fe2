"""Proven widths of a whole network: from the input's format to every neuron, before anything runs."""

from __future__ import annotations

import math

import numpy as np

from spikequant.law.bounds import Interval, RangeOps, StepBounds, exact, prove_step
from spikequant.law.errors import WidthError
from spikequant.law.network import InputNode, IntNet, JoinNode, MatmulNode, NeuronNode, Node, PoolNode, SynapseNode

CARRIER_BITS = 63


def prove_network(net: IntNet, *, check_reach: bool = False) -> dict[str, StepBounds]:
    """Bounds of one step of every neuron node, from the formats alone: for any input, at any time.

    Raises:
        WidthError: a sum or an intermediate of the named node needs more than 63 bits.
    """
    values = network_ranges(net)
    proven: dict[str, StepBounds] = {}
    for node in net.neurons:
        sources = [with_start(values[edge.source], edge.delay) for edge in node.inputs]
        proven[node.name] = _neuron(node, sources, check_reach)
    return proven


def network_ranges(net: IntNet) -> dict[str, Interval]:
    """What every node's value can be at any step, from the formats alone, by node name.

    Raises:
        WidthError: a sum of the named node needs more than 63 bits.
    """
    values = {node.name: _output(node) for node in net.neurons}
    shapes = {node.name: node.shape for node in net.nodes}
    for node in _settled(net):
        if isinstance(node, NeuronNode):
            continue
        sources = [with_start(values[edge.source], edge.delay) for edge in node.inputs]
        inner = shapes[node.inputs[0].source][-1] if node.inputs else 1
        values[node.name] = _value(node, sources, inner)
        _check(node, values[node.name])
    return values


def _settled(net: IntNet) -> list[Node]:
    """The nodes, each behind those whose values it reads; a neuron's output is known from its spec alone."""
    known = {node.name for node in net.neurons}
    missing = [{edge.source for edge in node.inputs} - known for node in net.nodes]
    readers: dict[str, list[int]] = {}
    for k, sources in enumerate(missing):
        for source in sources:
            readers.setdefault(source, []).append(k)
    order = [k for k, sources in enumerate(missing) if not sources]
    for k in order:  # grows while it is read, so that every edge is looked at once
        name = net.nodes[k].name
        for reader in readers.pop(name, ()):
            missing[reader].discard(name)
            if not missing[reader]:
                order.append(reader)
    stuck = next((node for node, sources in zip(net.nodes, missing, strict=True) if sources), None)
    if stuck is not None:
        raise WidthError(
            f"{stuck.name}: it adds up over time without a neuron in the circle, so no width holds it; "
            "put a neuron into the circle"
        )
    return [net.nodes[k] for k in order]


def with_start(value: Interval, delay: int) -> Interval:
    """A delayed edge also carries the zeros before the first step."""
    if delay == 0:
        return value
    return Interval(np.minimum(value.low, 0), np.maximum(value.high, 0))


def _output(node: NeuronNode) -> Interval:
    if node.spec.output == "spike":
        return Interval(exact(0), exact(node.spec.spikes_max))
    assert node.spec.v is not None
    return Interval(exact(node.spec.v.format.min), exact(node.spec.v.format.max))


def _neuron(node: NeuronNode, sources: list[Interval], check_reach: bool) -> StepBounds:
    ops = RangeOps()
    total = ops.interval(0, 0)
    for gain, source in zip(node.gains, sources, strict=True):
        total = ops.add(total, ops.mul(ops.const(gain), source))
    _check(node, total)
    return prove_step(node.spec, node.params, total.low, total.high, where=node.name, check_reach=check_reach)


def _value(node: Node, sources: list[Interval], inner: int) -> Interval:
    """Bounds of a node's value; `inner` is the last axis of its first input."""
    ops = RangeOps()
    if isinstance(node, InputNode):
        return Interval(exact(node.format.min), exact(node.format.max))
    if isinstance(node, SynapseNode):
        return ops.dot(sources[0], node.product)
    low, high = _hull(sources)
    if isinstance(node, PoolNode) and node.kind == "sum":
        window = math.prod(node.kernel)
        return Interval(exact(window * min(low, 0)), exact(window * max(high, 0)))
    if isinstance(node, JoinNode):
        return _join(node, sources)
    if isinstance(node, MatmulNode):
        terms = sources[0], sources[1]
        term = ops.mul(*(Interval(exact(_hull([t])[0]), exact(_hull([t])[1])) for t in terms))
        return Interval(inner * term.low, inner * term.high)
    return Interval(exact(low), exact(high))


def _join(node: JoinNode, sources: list[Interval]) -> Interval:
    ops = RangeOps()
    ends = [Interval(exact(_hull([s])[0]), exact(_hull([s])[1])) for s in sources]
    if node.kind == "iand":
        return ops.mul(ops.sub(ops.const(1), ends[0]), ends[1])
    scaled = [ops.mul(ops.const(g), s) for g, s in zip(node.gains, ends, strict=True)]
    total = scaled[0]
    for part in scaled[1:]:
        if node.kind == "add":
            total = ops.add(total, part)
        elif node.kind == "product":
            total = ops.mul(total, part)
        else:
            total = Interval(np.minimum(total.low, part.low), np.maximum(total.high, part.high))
    return total


def _hull(values: list[Interval]) -> tuple[int, int]:
    return min(int(np.min(v.low)) for v in values), max(int(np.max(v.high)) for v in values)


def _check(node: Node, value: Interval) -> None:
    low, high = _hull([value])
    if max(-low - 1, high).bit_length() + 1 > CARRIER_BITS:
        raise WidthError(
            f"{node.name}: its sums reach from {low} to {high}, more than the {CARRIER_BITS} bits of the golden model; "
            "use fewer bits for weights, inputs or fractions"
        )

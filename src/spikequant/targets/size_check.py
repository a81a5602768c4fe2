"""Sizes against a target: counts, windows, maps and delays."""

from __future__ import annotations

import math
from collections.abc import Iterator

from spikequant.law.network import InputNode, IntNet, NeuronNode, PoolNode, SynapseNode
from spikequant.targets.profile import Limits, Target
from spikequant.targets.report import Violation
from spikequant.targets.wiring import arrivals, kind, origins, outputs, sources, too_early

Used = dict[str, tuple[int, int]]


def size_violations(target: Target, net: IntNet, used: Used) -> Iterator[Violation]:
    """Everything that is too large, too many or not there; `used` is filled with what was counted."""
    limits = target.limits
    yield from _nodes(limits, net)
    yield from _counts(limits, net, used)
    for node in net.neurons:
        yield from _fan_in(limits, net, node, used)
        yield from _map(limits, node)
    for synapse in net.synapses:
        yield from _window(limits, net, synapse)
    yield from _fan_out(limits, net, used)
    yield from _time(limits, net)


def _nodes(limits: Limits, net: IntNet) -> Iterator[Violation]:
    for node in net.nodes:
        if limits.nodes is not None and kind(node) not in limits.nodes:
            text = f"is a {kind(node)}; this target places {', '.join(limits.nodes)}"
            yield Violation(node=node.name, limit="nodes", text=text)
        pools = limits.pools if isinstance(node, PoolNode) else None
        if isinstance(node, PoolNode) and pools and (node.kind != "sum" or any(k not in pools for k in node.kernel)):
            text = f"pools by {node.kind} over {node.kernel}; this target by sums over windows of {pools}"
            yield Violation(node=node.name, limit="pools", text=text)


def _count(used: Used, name: str, found: int, most: int | None, where: str = "network") -> Iterator[Violation]:
    if most is None:
        return
    used[name] = (max(found, used.get(name, (0, 0))[0]), most)
    if found > most:
        yield Violation(node=where, limit=name, text=f"{found:,} {name}; this target has {most:,}")


def _counts(limits: Limits, net: IntNet, used: Used) -> Iterator[Violation]:
    ends = outputs(net)
    sizes = {node.name: math.prod(node.shape) for node in net.neurons}
    outputs_wide = limits.outputs is not None
    hidden = sum(size for name, size in sizes.items() if not outputs_wide or name not in ends)
    yield from _count(used, "inputs", math.prod(net.input.shape), limits.inputs)
    yield from _count(used, "neurons", hidden, limits.neurons)
    yield from _count(used, "outputs", sum(sizes[name] for name in ends), limits.outputs)
    yield from _count(used, "layers", len(sizes), limits.layers)
    fmt, most = net.input.format, limits.input_codes
    weighted = [s for s in net.synapses if any(isinstance(o, InputNode) for o, _ in origins(net, s.inputs[0].source))]
    if most is not None and weighted and (fmt.min < 0 or fmt.max > most):
        text = f"codes from {fmt.min} to {fmt.max}; this target takes 0 to {most} in a step: spikes, not pixels"
        yield Violation(node=net.input.name, limit="input_codes", text=text)


def _fan_in(limits: Limits, net: IntNet, node: NeuronNode, used: Used) -> Iterator[Violation]:
    rows = [a.synapse.product.codes[0].size for a in arrivals(net, node) if a.synapse is not None]
    yield from _count(used, "fan_in", sum(rows), limits.fan_in, node.name)


def _map(limits: Limits, node: NeuronNode) -> Iterator[Violation]:
    if len(node.shape) < 2:
        return
    if limits.channels is not None and node.shape[0] > limits.channels:
        text = f"{node.shape[0]} channels; this target has {limits.channels}"
        yield Violation(node=node.name, limit="channels", text=text)
    if limits.side is not None and max(node.shape[1:]) > limits.side:
        text = f"a map of {node.shape[1:]}; this target has at most {limits.side} a side"
        yield Violation(node=node.name, limit="side", text=text)


def _window(limits: Limits, net: IntNet, node: SynapseNode) -> Iterator[Violation]:
    product = node.product
    if product.kind != "conv":
        return
    window = product.codes.shape[2:]
    if limits.kernel == 0:
        yield Violation(node=node.name, limit="kernel", text="is a convolution; this target has dense synapses only")
        return
    if limits.kernel is not None and max(window) > limits.kernel:
        text = f"a window of {window}; this target has at most {limits.kernel} a side"
        yield Violation(node=node.name, limit="kernel", text=text)
    if limits.strides is not None and any(stride not in limits.strides for stride in product.stride):
        text = f"a stride of {product.stride}; this target has {limits.strides}"
        yield Violation(node=node.name, limit="strides", text=text)


def _fan_out(limits: Limits, net: IntNet, used: Used) -> Iterator[Violation]:
    if limits.fan_out is None:
        return
    for name in (net.input.name, *(node.name for node in net.neurons)):
        readers = {n.name for n in net.neurons for source, _ in sources(net, n) if source.name == name}
        yield from _count(used, "fan_out", len(readers), limits.fan_out, name)


def _time(limits: Limits, net: IntNet) -> Iterator[Violation]:
    for node in net.neurons:
        for source, delay in sources(net, node):
            if limits.delay is not None and delay > limits.delay:
                text = f"reads {source.name} {delay} steps late; this target delays at most {limits.delay}"
                yield Violation(node=node.name, limit="delay", text=text)
    if limits.layer_delay:
        late = too_early(net, limits.layer_delay)
        if late is not None:
            text = (
                f"lies on a circle of more layers than its delays; every layer takes {limits.layer_delay} step on this "
                "target, so the circle needs as many steps of delay"
            )
            yield Violation(node=late, limit="layer_delay", text=text)

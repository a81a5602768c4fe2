"""How the layers of a network hang together: which weights reach which neurons, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spikequant.law.formats import IntArray
from spikequant.law.network import InputNode, IntNet, JoinNode, NeuronNode, Node, PoolNode, ReshapeNode, SynapseNode


@dataclass(frozen=True, eq=False)
class Arrival:
    """One input of a neuron layer: the synapse behind it, and the gain of the neuron.

    ``path``: nodes between synapse and neuron, nearest to the neuron first.
    """

    neuron: NeuronNode
    synapse: SynapseNode | None
    gain: IntArray
    path: tuple[Node, ...]

    def weights(self) -> IntArray:
        """Codes times gain, in accumulator LSBs, in the shape of the codes; the gain is one per output channel."""
        assert self.synapse is not None
        codes = self.synapse.product.codes
        per_neuron = np.broadcast_to(self.gain, self.neuron.shape)
        if self.synapse.product.kind == "conv":
            per_channel = per_neuron.reshape(self.neuron.shape[0], -1)[:, 0]
        else:
            per_channel = per_neuron.reshape(-1, self.neuron.shape[-1])[0]
        return codes * per_channel.reshape(-1, *([1] * (codes.ndim - 1)))


def arrivals(net: IntNet, neuron: NeuronNode) -> Iterator[Arrival]:
    """Every input of a neuron layer, walked back to its synapse."""
    for edge, gain in zip(neuron.inputs, neuron.gains, strict=True):
        node, path = net.node(edge.source), []
        while isinstance(node, (PoolNode, ReshapeNode)):
            path.append(node)
            node = net.node(node.inputs[0].source)
        yield Arrival(neuron, node if isinstance(node, SynapseNode) else None, gain, tuple(path))


def origins(net: IntNet, name: str) -> Iterator[tuple[NeuronNode | InputNode, int]]:
    """Neurons and inputs whose values a node is made of, and the delay on the way (neurons are origins themselves)."""
    stack, seen = [(name, 0)], set()
    while stack:
        name, delay = stack.pop()
        if (name, delay) in seen:
            continue
        seen.add((name, delay))
        node = net.node(name)
        if isinstance(node, (NeuronNode, InputNode)):
            yield node, delay
        else:
            stack += [(edge.source, delay + edge.delay) for edge in node.inputs]


def sources(net: IntNet, neuron: NeuronNode) -> list[tuple[NeuronNode | InputNode, int]]:
    """What feeds a neuron layer, with delays."""
    return [(found, delay + edge.delay) for edge in neuron.inputs for found, delay in origins(net, edge.source)]


def outputs(net: IntNet) -> set[str]:
    """Neuron layers that the decoder reads."""
    return {node.name for node, _ in origins(net, net.decoder.source) if isinstance(node, NeuronNode)}


def kind(node: Node) -> str:
    """A node in the words of `Limits.nodes`."""
    return node.kind if isinstance(node, JoinNode) else type(node).__name__.removesuffix("Node").lower()


def too_early(net: IntNet, layer_delay: int) -> str | None:
    """A neuron layer on a circle that the chip cannot run: each layer takes `layer_delay` steps there.

    Shifting whole layers in time changes no spike, so only circles matter: the delays of one must add up to at least
    `layer_delay` per layer (retiming, Leiserson & Saxe 1991).  Found as a negative circle (Bellman-Ford).
    """
    edges = [
        (source.name, neuron.name, delay - layer_delay)
        for neuron in net.neurons
        for source, delay in sources(net, neuron)
        if isinstance(source, NeuronNode)
    ]
    distance = {neuron.name: 0 for neuron in net.neurons}
    for _ in range(len(distance)):
        moved = None
        for source, target, slack in edges:
            if distance[source] + slack < distance[target]:
                distance[target], moved = distance[source] + slack, target
        if moved is None:
            return None
    return moved

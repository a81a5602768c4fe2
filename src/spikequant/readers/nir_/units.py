"""Real units of the values of an integer network, and where a neuron's bias can stand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.network import IntNet, JoinNode, NeuronNode, Node, PoolNode, ReshapeNode, SynapseNode
from spikequant.readers.nir_.neurons import PlainNeuron, Reals, real_lsb, rest_for_bias


class Units:
    """What one code of each value is worth, chosen so that a layer of weights needs no factor behind it."""

    def __init__(self, net: IntNet, neurons: Mapping[str, PlainNeuron]) -> None:
        self.net, self.neurons = net, neurons
        self.users: dict[str, list[tuple[Node, int]]] = {node.name: [] for node in net.nodes}
        for node in net.nodes:
            for k, edge in enumerate(node.inputs):
                self.users[edge.source].append((node, k))
        self._of_synapse: dict[str, Reals] = {}

    def need(self, node: NeuronNode, index: int) -> Reals:
        """Real worth of one code at an input of a neuron."""
        return np.asarray(node.gains[index], dtype=np.float64) * real_lsb(node) * self.neurons[node.name].factor

    def of_neuron(self, node: NeuronNode) -> Reals:
        """A spike counts 1; a membrane that leaves its neuron counts the LSBs of one code."""
        if node.spec.output == "spike":
            return np.ones(())
        return np.asarray(node.params["v_load"], dtype=np.float64) * real_lsb(node)

    def of_synapse(self, node: SynapseNode) -> Reals:
        """The unit in which its readers count, if they agree, else what the network says of it, else 1."""
        if node.name not in self._of_synapse:
            wanted = self._wanted(node, set())
            usable = wanted is not None and is_per_channel(wanted, node.shape) and bool((wanted > 0).all())
            self._of_synapse[node.name] = wanted if usable and wanted is not None else _own_unit(node)
        return self._of_synapse[node.name]

    def _wanted(self, node: Node, seen: set[str]) -> Reals | None:
        """The unit in which all readers of a node count; None where they differ or there is none."""
        if node.name in seen:
            return None
        found: list[Reals | None] = []
        for user, k in self.users[node.name]:
            if isinstance(user, NeuronNode):
                found.append(self.need(user, k))
                continue
            inner = (
                self._wanted(user, seen | {node.name}) if isinstance(user, (PoolNode, ReshapeNode, JoinNode)) else None
            )
            if inner is not None and isinstance(user, JoinNode):
                inner = inner * user.gains[k] if user.kind == "add" else None
            elif inner is not None and isinstance(user, ReshapeNode):
                inner = inner if inner.size == 1 else np.broadcast_to(inner, user.shape).reshape(node.shape)
            elif inner is not None and not is_per_channel(inner, user.shape):
                inner = None
            elif inner is not None:
                inner = per_channel(inner, user.shape)
            found.append(inner)
        first = found[0] if found else None
        alike = all(other is not None and first is not None and np.array_equal(other, first) for other in found)
        return first if alike else None

    def through(self, node: Node, unit: Reals) -> Reals:
        """The unit behind a pooling or a reshape."""
        if unit.size == 1:
            return unit.reshape(())
        before = self.net.node(node.inputs[0].source).shape
        if isinstance(node, ReshapeNode):
            return np.broadcast_to(unit, before).reshape(node.shape)
        if not is_per_channel(unit, before):
            raise Unsupported(f"node {node.name} ({type(node).__name__}): NIR cannot express sums of different units")
        return per_channel(unit, before)


def is_per_channel(unit: Reals, shape: tuple[int, ...]) -> bool:
    """Whether all values of a channel (the first axis) count in one unit."""
    rows = np.broadcast_to(unit, shape).reshape(shape[0], -1)
    return bool((rows == rows[:, :1]).all())


def per_channel(unit: Reals, shape: tuple[int, ...]) -> Reals:
    """One number, or ``[C, 1, ...]``."""
    if unit.size == 1:
        return unit.reshape(())
    rows = np.broadcast_to(unit, shape).reshape(shape[0], -1)[:, 0]
    return rows.reshape(-1, *([1] * (len(shape) - 1)))


def rows_of(unit: Reals, shape: tuple[int, ...]) -> Reals:
    """One number for each channel, ``[C]``."""
    return np.broadcast_to(unit, shape).reshape(shape[0], -1)[:, 0].astype(np.float64)


def _own_unit(node: SynapseNode) -> Reals:
    scale = np.ones(()) if node.scale is None else np.asarray(node.scale, dtype=np.float64)
    fits = scale.size in (1, node.shape[0]) and bool(np.isfinite(scale).all()) and bool((scale > 0).all())
    if not fits:
        return np.ones(())
    return scale.reshape(()) if scale.size == 1 else scale.reshape(-1, *([1] * (len(node.shape) - 1)))


def place_biases(net: IntNet, units: Units) -> dict[str, Reals]:
    """Biases of neurons as biases of the weights in front of them, ``[out]`` by layer; where none can, as a rest.

    Between weights and neuron may stand sums over windows that do not reach over the border.

    Raises:
        Unsupported: a neuron with a bias, without a rest, and with no such weights.
    """
    placed: dict[str, Reals] = {}
    for node in net.neurons:
        made = units.neurons[node.name]
        for edge in node.inputs if made.bias is not None else ():
            source, windows, late = net.node(edge.source), 1, edge.delay
            while isinstance(source, PoolNode) and not any(source.padding) and len(units.users[source.name]) == 1:
                windows *= math.prod(source.kernel)
                late += source.inputs[0].delay
                source = net.node(source.inputs[0].source)
            alone = isinstance(source, SynapseNode) and len(units.users[source.name]) == 1 and not late
            if alone and made.bias is not None and is_per_channel(made.bias, node.shape):
                placed[source.name] = rows_of(made.bias, node.shape) / windows
                made.bias = None
        rest_for_bias(made, node)
    return placed

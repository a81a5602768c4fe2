"""Proof that a chip which saturates at every event never does: bounds over any order of delivery.

Xylo adds each spike's weight to a 16-bit current and saturates at once, so its result depends on the order in which
spikes arrive, unless no partial sum can leave the register.  Let ``P`` and ``N`` be the sums of the positive and of the
negative weights of a neuron, each times the most spikes that its source can send in a step.  Whatever the order, the
current stays inside ``[i_low + N, i_high + P]``, where ``i_low`` and ``i_high`` bound it behind its decay.  The decay
``y - max(1, y >> d)`` never decreases in ``y``, so the highest current is the least fixed point of
``y -> decay(y) + P``: ``P 2^d`` for ``P >= 2``, ``P`` below.  The negative side: ``(N + 1) 2^d - 1``.

How often a source can fire is bounded the same way: behind a step without the cap its membrane is at most ``thr - 1``,
so before the next one it is at most ``decay(thr - 1) + i_high + bias``.  Recurrent layers start at the cap; every round
only tightens, and each is a proof by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikequant.law.formats import IntArray
from spikequant.law.network import InputNode, IntNet, NeuronNode
from spikequant.targets.wiring import arrivals

MOST_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class Reach:
    """Extremes of one neuron layer, per neuron, over all inputs and orders of delivery.

    ``current``: the lowest and highest partial sum; ``change``: of what is added to the membrane; ``spikes``: most in
    a step.
    """

    current: tuple[IntArray, IntArray]
    change: tuple[IntArray, IntArray]
    spikes: IntArray

    def fits(self, bits: int) -> bool:
        """Whether no value can leave a signed register of `bits` bits."""
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        lows, highs = (self.current[0], self.change[0]), (self.current[1], self.change[1])
        lowest_value, highest_value = min(int(a.min()) for a in lows), max(int(a.max()) for a in highs)
        return bool(low <= lowest_value and highest_value <= high)


def decay(value: IntArray, dash: IntArray) -> IntArray:
    """``v - (v >> dash)`` with a decrement of at least one toward zero.

    >>> decay(np.array([5, -5, 1, 0]), np.array(2)).tolist()
    [4, -3, 0, 0]
    """
    less = value >> dash
    return value - np.where(less == 0, np.sign(value), less)


def highest(drive: IntArray, dash: IntArray) -> IntArray:
    """The least fixed point of ``y -> decay(y) + drive`` from 0, for a drive of at least 0.

    >>> highest(np.array([0, 1, 2, 100]), np.array(3)).tolist()
    [0, 1, 16, 800]
    """
    drive = np.maximum(drive, 0)
    return np.where(drive >= 2, drive << dash, drive)


def lowest(drive: IntArray, dash: IntArray) -> IntArray:
    """The greatest fixed point of ``y -> decay(y) + drive`` from 0, for a drive of at most 0.

    >>> lowest(np.array([0, -1, -2, -100]), np.array(3)).tolist()
    [0, -1, -9, -793]
    """
    drive = np.minimum(drive, 0)
    return np.where(drive < 0, ((drive + 1) << dash) - 1, 0)


def reach(positive: IntArray, negative: IntArray, params: Mapping[str, Any], *, most_spikes: int, bits: int) -> Reach:
    """Extremes of one layer for the arriving sums ``P`` and ``N`` per neuron.

    `params`: ``leak``, ``leak_i`` (dashes), ``theta``, and ``v_bias`` if there is one, all in accumulator LSBs.
    """
    top, bottom = 2 ** (bits - 1) - 1, -(2 ** (bits - 1))
    dash_v, dash_i, theta = (np.asarray(params[name], dtype=np.int64) for name in ("leak", "leak_i", "theta"))
    bias, theta = np.asarray(params.get("v_bias", 0), dtype=np.int64), np.maximum(theta, 1)
    peak, valley = highest(positive, dash_i), lowest(negative, dash_i)
    i_high, i_low = decay(peak, dash_i), decay(valley, dash_i)
    v_low = np.maximum(lowest(i_low + bias, dash_v), bottom)
    before = np.minimum(decay(theta - 1, dash_v) + i_high + bias, top)
    capped = before >= (most_spikes + 1) * theta
    spikes = np.where(capped, most_spikes, np.maximum(before, 0) // theta)
    v_high = np.where(capped, top, theta - 1)
    up, down = decay(v_low, dash_v) - v_low, v_high - decay(v_high, dash_v)
    sums = (i_low - down, i_high + up)
    change = (np.minimum(sums[0], sums[0] + bias), np.maximum(np.maximum(sums[1], sums[1] + bias), up))
    return Reach((valley, peak), change, np.minimum(spikes, most_spikes))


def network_reach(net: IntNet, bits: int) -> dict[str, Reach]:
    """Extremes of every neuron layer of a network of linear synapses, over all inputs and orders of delivery."""
    spikes: dict[str, IntArray] = {
        node.name: np.full(node.shape, node.spec.spikes_max, dtype=np.int64) for node in net.neurons
    }
    found: dict[str, Reach] = {}
    for _ in range(MOST_ROUNDS):
        before = dict(spikes)
        for node in net.neurons:
            positive, negative = _arriving(net, node, spikes)
            found[node.name] = reach(positive, negative, node.params, most_spikes=node.spec.spikes_max, bits=bits)
            spikes[node.name] = np.broadcast_to(found[node.name].spikes, node.shape)
        if all(np.array_equal(spikes[name], before[name]) for name in spikes):
            break
    return found


def _arriving(net: IntNet, node: NeuronNode, spikes: Mapping[str, IntArray]) -> tuple[IntArray, IntArray]:
    """Sums of positive and of negative weights, times the most that each source sends in a step."""
    positive: IntArray = np.zeros(node.shape, dtype=np.int64)
    negative: IntArray = np.zeros(node.shape, dtype=np.int64)
    for arrival in arrivals(net, node):
        assert arrival.synapse is not None
        weights = arrival.weights()
        most = _most(net, arrival.synapse.inputs[0].source, spikes)
        positive += np.maximum(weights, 0) @ most
        negative += np.minimum(weights, 0) @ most
    return positive, negative


def _most(net: IntNet, name: str, spikes: Mapping[str, IntArray]) -> IntArray:
    """The most spikes of every source of a synapse in one step, flat."""
    node = net.node(name)
    while not isinstance(node, (InputNode, NeuronNode)):
        node = net.node(node.inputs[0].source)
    if isinstance(node, InputNode):
        return np.full(int(np.prod(node.shape)), node.format.max, dtype=np.int64)
    return np.asarray(spikes[node.name]).reshape(-1)

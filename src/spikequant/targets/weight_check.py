"""Weights against a target: range, grid and the shift that a layer (or the chip) shares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spikequant.law.formats import IntArray
from spikequant.law.network import InputNode, IntNet, NeuronNode
from spikequant.targets.profile import Target, WeightRule
from spikequant.targets.report import Violation
from spikequant.targets.wiring import Arrival, arrivals, outputs


def weight_violations(target: Target, net: IntNet) -> Iterator[Violation]:
    """Everything about the synapses of a network that the target cannot store."""
    rule = target.weights
    if rule is None:
        return
    ends = outputs(net)
    groups: dict[str, list[tuple[str, IntArray]]] = {}
    for node in net.neurons:
        for arrival in arrivals(net, node):
            if arrival.synapse is None:
                yield from _direct(target, net, node, arrival)
                continue
            name = arrival.synapse.name
            if rule.unit is None:
                yield from _codes(rule, name, arrival.synapse.product.codes)
                continue
            role = _role(net, arrival, is_output=node.name in ends)
            groups.setdefault(role if rule.shift_shared else name, []).append((name, arrival.weights()))
    for role, members in groups.items():
        yield from _shifted(rule, role, members)


def _codes(rule: WeightRule, name: str, codes: IntArray) -> Iterator[Violation]:
    if not _stored(rule, codes):
        yield Violation(node=name, limit="weight", text=f"codes {_span(codes)}; this target stores {_held(rule)}")


def _role(net: IntNet, arrival: Arrival, *, is_output: bool) -> str:
    assert arrival.synapse is not None
    if isinstance(net.node(arrival.synapse.inputs[0].source), InputNode):
        return "input weights"
    return "output weights" if is_output else "hidden weights"


def _shifted(rule: WeightRule, role: str, members: list[tuple[str, IntArray]]) -> Iterator[Violation]:
    """One exponent for all members: the first that holds every weight; else each that fits none is named."""
    assert rule.unit is not None
    for exponent in range(rule.shift + 1):
        if all(_fits(rule, weights, exponent) for _, weights in members):
            return
    alone = [any(_fits(rule, weights, e) for e in range(rule.shift + 1)) for _, weights in members]
    for (name, weights), fits in zip(members, alone, strict=True):
        if not fits:
            text = f"weights {_span(weights)} in accumulator LSBs; this target stores {_held(rule)}"
            yield Violation(node=name, limit="weight", text=text)
    if all(alone):
        names = ", ".join(name for name, _ in members)
        yield Violation(node=role, limit="weight shift", text=f"{names} need different shifts; this target has one")


def _fits(rule: WeightRule, weights: IntArray, exponent: int) -> bool:
    assert rule.unit is not None
    step = rule.unit << exponent
    return not np.any(weights % step) and _stored(rule, weights // step)


def _stored(rule: WeightRule, weights: IntArray) -> bool:
    mixed = bool((weights > 0).any()) and bool((weights < 0).any())
    return (rule.mixed if mixed or rule.one_sign is None else rule.one_sign).holds(weights)


def _span(weights: IntArray) -> str:
    return f"from {int(weights.min())} to {int(weights.max())}"


def _held(rule: WeightRule) -> str:
    step = f" in steps of {rule.mixed.multiple_of}" if rule.mixed.multiple_of > 1 else ""
    unit = (
        f", times {rule.unit} and a power of two up to 2^{rule.shift}" if rule.unit is not None and rule.shift else ""
    )
    one = f" (of one sign: up to {rule.one_sign.max})" if rule.one_sign is not None else ""
    return f"{rule.mixed.min} to {rule.mixed.max}{step}{one}{unit}; use fewer weight bits"


def _direct(target: Target, net: IntNet, node: NeuronNode, arrival: Arrival) -> Iterator[Violation]:
    """The input (or another layer) drives neurons without weights."""
    if not target.input_as_bias:
        text = "is driven without weights; this target has synapses only"
        yield Violation(node=node.name, limit="weight", text=text)
        return
    rule = target.numbers.get("v_bias")
    if rule is not None:
        ends = [int(g) * code for g in np.unique(arrival.gain) for code in (net.input.format.min, net.input.format.max)]
        if not all(rule.holds(end) for end in ends):
            text = f"the input drives it as a bias of {min(ends)} to {max(ends)}; this target takes {rule}"
            yield Violation(node=node.name, limit="v_bias", text=text)

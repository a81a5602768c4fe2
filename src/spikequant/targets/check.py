"""`check`: does an integer network keep to the rules and limits of a target?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.formats import signed_bits_for
from spikequant.law.network import InputNode, IntNet, SynapseNode
from spikequant.law.widths import network_ranges, prove_network, with_start
from spikequant.targets.neuron_check import neuron_violations, spec_misfits
from spikequant.targets.order_free import network_reach
from spikequant.targets.profile import Target
from spikequant.targets.registry import target as find
from spikequant.targets.report import TargetReport, Violation
from spikequant.targets.size_check import size_violations
from spikequant.targets.weight_check import weight_violations
from spikequant.targets.wiring import origins, outputs


def check(net: IntNet, target: str | Target | None = None) -> TargetReport:
    """Compare `net` with a target; every violation is listed, with the layer and the limit.

    Args:
        net: the integer network.
        target: a name (``"xylo"``), a profile, or None for the one that the network names.

    Raises:
        Unsupported: no such target, or no `IntNet`.
    """
    if not isinstance(net, IntNet):
        raise Unsupported(f"expected an IntNet, got {type(net).__name__}; lower(model, example_input) makes one")
    profile = find(net.target if target is None else target)
    used: dict[str, tuple[int, int]] = {}
    facts: dict[str, str] = {}
    violations = list(size_violations(profile, net, used))
    ends = outputs(net)
    for node in net.neurons:
        violations += neuron_violations(profile, node, is_output=node.name in ends)
    violations += weight_violations(profile, net)
    violations += _accumulators(profile, net, facts)
    violations += _inputs(profile, net)
    violations += _order_free(profile, net, facts, [v.limit for v in violations])
    return TargetReport(target=profile, violations=tuple(violations), used=used, facts=facts)


def require(net: IntNet, target: str | Target | None = None) -> TargetReport:
    """The report of `check`; raises where the target cannot do the network.

    Raises:
        Unsupported: with every violation.
    """
    report = check(net, target)
    if not report.passed:
        raise Unsupported(refusal(report.target, report.violations))
    return report


def refusal(target: Target, violations: tuple[Violation, ...] | list[Violation]) -> str:
    """The text of an error that lists all violations."""
    lines = "".join(f"\n  {violation}" for violation in violations)
    many = "1 reason" if len(violations) == 1 else f"{len(violations)} reasons"
    return f"target {target.tag} cannot do this network, {many}:{lines}"


def _accumulators(target: Target, net: IntNet, facts: dict[str, str]) -> Iterator[Violation]:
    most = target.limits.accumulator
    if most is None:
        return
    for name, bounds in prove_network(net).items():
        facts[name] = f"intermediates of {bounds.accumulator_bits} bits, proven"
        if bounds.accumulator_bits > most:
            text = f"an intermediate needs {bounds.accumulator_bits} bits of {most}; use fewer fraction or leak bits"
            yield Violation(node=name, limit="accumulator", text=text)


def _inputs(target: Target, net: IntNet) -> Iterator[Violation]:
    """The sum of a step against the register that it goes through on the chip."""
    narrow = [rule for rule in target.neurons if rule.input_bits is not None]
    if not narrow:
        return
    ranges = network_ranges(net)
    for node in net.neurons:
        rule = min(target.neurons, key=lambda rule: len(spec_misfits(node, rule)))
        if rule.input_bits is None:
            continue
        low = high = 0
        for gain, edge in zip(node.gains, node.inputs, strict=True):
            value = with_start(ranges[edge.source], edge.delay)
            ends = gain.astype(object) * value.low, gain.astype(object) * value.high
            low, high = low + np.minimum(*ends), high + np.maximum(*ends)
        bits = signed_bits_for(int(np.min(low)), int(np.max(high)))
        if bits > rule.input_bits:
            text = f"what arrives in a step needs {bits} bits of {rule.input_bits}, where the chip would wrap"
            yield Violation(node=node.name, limit="input_bits", text=text)


def _order_free(target: Target, net: IntNet, facts: dict[str, str], seen: list[str]) -> Iterator[Violation]:
    """Saturation at every event: refused unless no order of delivery can meet it."""
    bits = target.each_event_saturates
    if bits is None or any(limit.startswith("neuron") or limit in ("nodes", "kernel", "weight") for limit in seen):
        return  # the proof reads these rules; it is made once they hold
    yield from _direct_outputs(net)
    for name, reach in network_reach(net, bits).items():
        lows, highs = int(reach.current[0].min()), int(reach.current[1].max())
        facts[name] = (
            f"current from {lows} to {highs} in any order of delivery, at most {int(reach.spikes.max())} spikes a step"
        )
        if not reach.fits(bits):
            change = f"membrane changes from {int(reach.change[0].min())} to {int(reach.change[1].max())}"
            text = (
                f"it saturates at every event, and the current can reach {lows} to {highs}, {change}, beyond {bits} "
                "bits: the result would depend on the order of the events, which no network of the law can say; use "
                "fewer weight bits, fewer inputs or a faster synaptic decay"
            )
            yield Violation(node=name, limit="each_event_saturates", text=text)


def _direct_outputs(net: IntNet) -> Iterator[Violation]:
    ends = outputs(net)
    for node in net.neurons:
        for edge in node.inputs:
            synapse = net.node(edge.source)
            if node.name in ends and isinstance(synapse, SynapseNode):
                reads = [origin for origin, _ in origins(net, synapse.inputs[0].source)]
                if any(isinstance(origin, InputNode) for origin in reads):
                    text = "an output neuron reads the input; on this target only hidden neurons do"
                    yield Violation(node=node.name, limit="outputs", text=text)


__all__ = ["check", "refusal", "require"]

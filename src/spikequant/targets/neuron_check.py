"""Neurons against a target: spec, registers, leaks, parameters; one sentence per misfit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spikequant.law.formats import signed_bits_for
from spikequant.law.network import NeuronNode
from spikequant.law.spec import Leak
from spikequant.targets.profile import LeakRule, NeuronRule, StateRule, Target
from spikequant.targets.report import Violation

PARAMETERS = ("theta", "reset", "bias", "v_bias", "floor")


def neuron_violations(target: Target, node: NeuronNode, *, is_output: bool) -> Iterator[Violation]:
    """Everything about one layer of neurons that the target does not have."""
    place = "output" if is_output else "hidden"
    rules = [rule for rule in target.neurons if rule.place in ("any", place)]
    rule, misfits = min(((rule, spec_misfits(node, rule)) for rule in rules), key=lambda pair: len(pair[1]))
    for text in misfits:
        yield Violation(node=node.name, limit=f"neuron {rule.name}", text=text)
    yield from _numbers(target, node)


def spec_misfits(node: NeuronNode, rule: NeuronRule) -> list[str]:
    """How a layer differs from one kind of neuron."""
    spec, found = node.spec, []
    if rule.order is not None and spec.order != rule.order:
        found.append(f"runs {' > '.join(spec.order)}; this target runs {' > '.join(rule.order)}")
    if spec.reset not in rule.resets:
        found.append(f"resets by {spec.reset!r}; this target by {' or '.join(map(repr, rule.resets))}")
    if spec.spikes_max > rule.spikes_max:
        found.append(f"fires up to {spec.spikes_max} times in a step; this target at most {rule.spikes_max}")
    if spec.output not in rule.outputs:
        found.append("gives its membrane; this target gives spikes: end with a neuron that fires")
    if spec.has_adaptation and not rule.adapts:
        found.append("adapts its threshold; this target does not")
    if spec.refractory > rule.refractory:
        found.append(f"waits {spec.refractory} steps after a spike; this target at most {rule.refractory}")
    if rule.order is not None and spec.lower != "none":
        found.append("has a negative threshold; this target has none")
    if rule.order is not None and spec.v is not None and spec.v.levels:
        found.append(f"keeps its membrane on {spec.v.levels} levels of a table; this target on every code")
    found += [f"decays by {text}" for text in _leak_misfits(node, "leak", spec.leak, rule.leak)]
    if spec.leak_i is not None and (rule.leak_i is not None or rule.order is None):
        found += [f"current decays by {text}" for text in _leak_misfits(node, "leak_i", spec.leak_i, rule.leak_i)]
    for name, what, register in (("v", "membrane", rule.v), ("i", "current", rule.i)):
        found += [f"{what} has {text}" for text in _register_misfits(node, name, register)]
    return found


def _register_misfits(node: NeuronNode, name: str, rule: StateRule | None) -> Iterator[str]:
    state = getattr(node.spec, name)
    if state is None or rule is None:
        return
    yield from rule.misfits(state)
    if rule.counts_lsb:
        load, shift = node.params.get(f"{name}_load"), node.params.get(f"{name}_shift")
        if np.any(np.asarray(load) != 1) or np.any(np.asarray(shift) != 0) or f"{name}_mul" in node.params:
            yield "codes of several accumulator LSBs; this target stores the accumulator itself"


def _leak_misfits(node: NeuronNode, name: str, leak: Leak, rule: LeakRule | None) -> Iterator[str]:
    rule = rule or LeakRule(forms=("none",))
    if leak.form not in rule.forms:
        yield f"the form {leak.form!r}; this target by {' or '.join(map(repr, rule.forms))}"
        return
    if leak.form == "none":
        return
    if leak.form == "multiply" and not rule.bits[0] <= leak.bits <= rule.bits[1]:
        yield f"factors of {leak.bits} bits; this target by {rule.bits[0]} to {rule.bits[1]} bits"
    if leak.form == "multiply" and leak.rounding not in rule.roundings:
        allowed = " or ".join("exactly" if r is None else r for r in rule.roundings)
        yield f"products rounded {leak.rounding or 'with the store'}; this target rounds {allowed}"


def _numbers(target: Target, node: NeuronNode) -> Iterator[Violation]:
    for name, why in target.forbidden.items():
        if np.any(node.params.get(name, 0)):
            yield Violation(node=node.name, limit=name, text=f"has a {name}: {why}")
    for name, rule in target.numbers.items():
        if name not in node.params:
            continue
        values = np.unique(node.params[name])
        wrong = [int(value) for value in values if not rule.holds(int(value))]
        if wrong:
            text = f"{name} = {wrong[0]}" + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            yield Violation(node=node.name, limit=name, text=f"{text}; this target takes {rule}")
        if rule.per_layer and len(values) > 1:
            text = f"{len(values)} different values of {name}; this target has one per layer"
            yield Violation(node=node.name, limit=name, text=text)
    for one, other in target.equal_numbers:
        if one in node.params and other in node.params and np.any(node.params[one] != node.params[other]):
            text = f"{one} and {other} differ; this target stores one number for both"
            yield Violation(node=node.name, limit=one, text=text)
    most = target.limits.parameter
    for name in PARAMETERS if most is not None else ():
        if name in node.params:
            bits = signed_bits_for(int(node.params[name].min()), int(node.params[name].max()))
            if most is not None and bits > most:
                yield Violation(node=node.name, limit="parameter", text=f"{name} needs {bits} bits of {most}")

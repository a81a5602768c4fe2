"""A profile as text, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from spikequant.law.formats import IntFormat
from spikequant.targets.profile import LeakRule, NeuronRule, StateRule, Target, WeightRule

PROMISES = {
    "equal": "equal step by step, as far as the sources describe the chip",
    "limits": "sizes and widths only (graded faithful): equality is not promised",
}
LIMITS = {
    "nodes": "places",
    "input_codes": "largest input of a channel in a step",
    "inputs": "input channels",
    "neurons": "neurons",
    "outputs": "outputs",
    "layers": "layers of neurons",
    "fan_in": "synapses into a neuron",
    "fan_out": "layers that read one layer",
    "kernel": "side of a window",
    "channels": "channels",
    "side": "side of a map",
    "strides": "strides",
    "pools": "windows of sum pooling",
    "delay": "steps of delay",
    "layer_delay": "steps from layer to layer",
    "accumulator": "bits of an intermediate",
    "parameter": "bits of a threshold or bias",
}


def describe(target: Target) -> str:
    """Everything that a profile says, section by section.

    >>> from spikequant.targets.xylo import XYLO
    >>> print(describe(XYLO).splitlines()[15])
      -128 to 127, times 2^0 to 2^7 (one exponent for all synapses of the input, of hidden layers, of outputs)
    """
    lines = [f"{target.tag}: {target.title}", f"promise: {PROMISES[target.promise]}"]
    for rule in target.neurons:
        lines += [f"neuron {rule.name}: {' > '.join(rule.order) if rule.order else 'any order'}"]
        lines += [f"  {line}" for line in _neuron(rule)]
    if target.weights is not None:
        lines += ["weights:", f"  {_weights(target.weights)}"]
    if target.numbers or target.forbidden:
        lines += ["parameters, in accumulator LSBs:"]
        for name, number in target.numbers.items():
            lines.append(f"  {name}: {number}{', one per layer' if number.per_layer else ''}")
        lines += [f"  {name}: none; {why}" for name, why in target.forbidden.items()]
        lines += [f"  {one} = {other}" for one, other in target.equal_numbers]
    limits = list(_limits(target))
    lines += ["limits:", *(f"  {line}" for line in limits)] if limits else []
    for title, texts in (("notes:", target.notes), ("sources:", target.sources)):
        lines += [title, *(f"  {text}" for text in texts)]
    return "\n".join(lines)


def _neuron(rule: NeuronRule) -> Iterator[str]:
    resets = "any" if len(rule.resets) == 4 else " or ".join(rule.resets)
    spikes = "at most 1 spike a step" if rule.spikes_max == 1 else f"at most {rule.spikes_max} spikes a step"
    yield f"reset {resets}; {spikes}; gives {' or '.join(rule.outputs)}s"
    for name, leak in (("membrane", rule.leak), ("current", rule.leak_i)):
        if leak is not None:
            yield f"{name} decays by {_leak(leak)}"
    for name, state in (("membrane", rule.v), ("current", rule.i)):
        if state is not None:
            yield f"{name} of {_state(state)}"
    if rule.input_bits is not None:
        yield f"what arrives in a step is proven to fit {rule.input_bits} bits"


def _leak(rule: LeakRule) -> str:
    if len(rule.forms) > 2:
        return f"any form, factors of at most {rule.bits[1]} bits"
    if rule.forms == ("none",):
        return "nothing (no leak)"
    if "multiply" not in rule.forms:
        return " or ".join(rule.forms)
    roundings = " or ".join("exact" if r is None else r for r in rule.roundings)
    return f"{' or '.join(rule.forms)}, factors of {rule.bits[1]} bits, rounded {roundings}"


def _state(rule: StateRule) -> str:
    sign = "signed " if rule.signed == (True,) else ""
    unit = ", one code is one accumulator LSB" if rule.counts_lsb else ""
    return f"{'' if rule.exactly else 'at most '}{rule.bits} {sign}bits that {' or '.join(rule.overflow)}{unit}"


def _weights(rule: WeightRule) -> str:
    text = _span(rule.mixed)
    if rule.one_sign is not None and rule.one_sign != rule.mixed:
        text += f" (of one sign: {_span(rule.one_sign)})"
    if rule.unit is None:
        return f"codes {text}"
    shared = " (one exponent for all synapses of the input, of hidden layers, of outputs)" if rule.shift_shared else ""
    if rule.unit == 1 and not rule.shift:
        return f"{text}, as the accumulator counts"
    unit = f"{rule.unit} * " if rule.unit > 1 else ""
    return f"{text}, times {unit}2^0 to {unit}2^{rule.shift}{shared}"


def _span(fmt: IntFormat) -> str:
    return f"{fmt.min} to {fmt.max}{f' in steps of {fmt.multiple_of}' if fmt.multiple_of > 1 else ''}"


def _limits(target: Target) -> Iterator[str]:
    for field in dataclasses.fields(target.limits):
        value = getattr(target.limits, field.name)
        if field.name == "kernel" and value == 0:
            yield "no convolutions"
        elif isinstance(value, tuple):
            yield f"{LIMITS[field.name]}: {', '.join(map(str, value))}"
        elif value is not None and (field.name != "layer_delay" or value):
            yield f"{LIMITS[field.name]}: {value:,}"
    if target.each_event_saturates is not None:
        yield f"saturates at every event at {target.each_event_saturates} bits: refused unless proven impossible"

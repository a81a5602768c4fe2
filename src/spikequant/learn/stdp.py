"""STDP rules as plain functions over the law's words, so that one text trains, prints and proves.

A rule says by how much a weight changes: `on_post` when the neuron spikes (it reads the input's trace), `on_pre`
when the input spikes (it reads the neuron's trace).  `land` adds the change and brings the weight back onto its grid:

    w <- clip(shr(w * 2^k + change, k, rounding), 0, w_max)

A quantized weight thus never leaves its grid while it learns.  On real numbers ``k = 0`` and nothing is rounded.
Traces: ``x <- shr(x * leak, bits, rounding)`` each step; a spike sets them to 1, or adds 1.
Sources: Morrison, Diesmann, Gerstner, *Phenomenological models of synaptic plasticity*, 2008; Diehl & Cook 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from spikequant.law.errors import PlanError
from spikequant.law.ops import Ops
from spikequant.law.rounding import Rounding

V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a rule may read besides weight and trace, in its own units (see `numbers.py`).

    Attributes:
        post, pre: learning rates in fine weight units per unit of trace (and of weight, for `Rule.by_weight`).
        w_max: largest weight.
        target: the trace aimed at.
    """

    post: Any
    pre: Any
    w_max: Any
    target: Any


Change = Callable[[Ops[Any], Any, Any, Rates], Any]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A named pair of changes.

    Attributes:
        name: key in `RULES`.
        on_post: ``(ops, w, trace of the input, rates) -> change`` when the neuron spikes.
        on_pre: ``(ops, w, trace of the neuron, rates) -> change`` when the input spikes; 0 where that trace is 0;
            None for a rule that acts on the neuron's spikes only.
        by_weight: the changes are products with a weight.
        silent_inputs: `on_post` also changes weights of inputs whose trace is 0.
    """

    name: str
    on_post: Change
    on_pre: Change | None = None
    by_weight: bool = False
    silent_inputs: bool = False


def post_pre_on_post(ops: Ops[V], w: V, trace: V, rates: Rates) -> V:
    """Additive: ``nu_post * x_pre``."""
    return ops.mul(trace, ops.const(rates.post))


def post_pre_on_pre(ops: Ops[V], w: V, trace: V, rates: Rates) -> V:
    """Additive: ``-nu_pre * x_post``."""
    return ops.sub(ops.const(0), ops.mul(trace, ops.const(rates.pre)))


def soft_bound_on_post(ops: Ops[V], w: V, trace: V, rates: Rates) -> V:
    """Multiplicative: ``nu_post * x_pre * (w_max - w)``."""
    return ops.mul(post_pre_on_post(ops, w, trace, rates), ops.sub(ops.const(rates.w_max), w))


def soft_bound_on_pre(ops: Ops[V], w: V, trace: V, rates: Rates) -> V:
    """Multiplicative: ``-nu_pre * x_post * w``."""
    return ops.mul(post_pre_on_pre(ops, w, trace, rates), w)


def target_trace_on_post(ops: Ops[V], w: V, trace: V, rates: Rates) -> V:
    """Diehl & Cook's own rule: ``nu_post * (x_pre - x_target) * (w_max - w)``."""
    return soft_bound_on_post(ops, w, ops.sub(trace, ops.const(rates.target)), rates)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(name="post_pre", on_post=post_pre_on_post, on_pre=post_pre_on_pre),
        Rule(name="soft_bound", on_post=soft_bound_on_post, on_pre=soft_bound_on_pre, by_weight=True),
        Rule(name="target_trace", on_post=target_trace_on_post, by_weight=True, silent_inputs=True),
    )
}
"""The rules by name: pairs, additive; pairs, soft bounds; the paper's."""


def rule_named(name: str) -> Rule:
    """The rule called `name`.

    Raises:
        PlanError: there is none; the message lists them.
    """
    if name not in RULES:
        raise PlanError(f"STDP rule {name!r}; expected one of {', '.join(RULES)}, or add yours to learn.RULES")
    return RULES[name]


def land(ops: Ops[V], w: V, change: V, *, fine_bits: int, w_max: Any, rounding: Rounding, noise: V) -> V:
    """``clip(shr(w * 2^fine_bits + change, fine_bits, rounding), 0, w_max)``."""
    fine = ops.add(ops.mul(w, ops.const(2**fine_bits)), change)
    return ops.clip(ops.shr(fine, ops.const(fine_bits), rounding, noise), 0, w_max)


def rescaled(ops: Ops[V], w: V, factor: V, *, fine_bits: int, w_max: Any, rounding: Rounding, noise: V) -> V:
    """Weight normalisation: ``clip(shr(w * factor, fine_bits, rounding), 0, w_max)``."""
    return ops.clip(ops.shr(ops.mul(w, factor), ops.const(fine_bits), rounding, noise), 0, w_max)


def decayed_trace(ops: Ops[V], trace: V, leak: Any, *, bits: int, rounding: Rounding, noise: V) -> V:
    """One step of a trace: ``shr(trace * leak, bits, rounding)``."""
    return ops.shr(ops.mul(trace, ops.const(leak)), ops.const(bits), rounding, noise)

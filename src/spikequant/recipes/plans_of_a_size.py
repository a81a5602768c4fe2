"""Plans of a size: equal bits, the allocator's, and what the network that they make must store, counted."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from spikequant.analyse import Traces, allocate, memory_rows, observe
from spikequant.analyse.score import Sensitivities
from spikequant.law.errors import PlanError
from spikequant.measure import flash_bits, ram_bits
from spikequant.plan import Plan, literally
from spikequant.quantize import quantize_
from spikequant.training import Batch

TRIES = 12
"""How often the allocator's budget is lowered, should its plan weigh more on this batch than on that of the traces."""
KEPT = 8
"""Bits of what has no trace."""
CAREFUL = 5
"""Membranes of so many bits or more keep most of their resolution below the threshold."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """What may be chosen, and how the rest of a layer's rule reads."""

    weight: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    membrane: tuple[int, ...] = (3, 4, 5, 6, 8, 10, 12)
    template: Plan

    def equal(self) -> Iterator[tuple[int, int]]:
        """Every pair of a width of all weights and one of all membranes."""
        return itertools.product(self.weight, self.membrane)


@dataclass(frozen=True)
class Sized:
    """A plan and the bytes of the network that it makes, weights, states and all else counted."""

    plan: Plan
    bytes: float
    words: str


def stored_bytes(model: nn.Module, batch: Batch) -> float:
    """All that a real or quantized model must store, in bytes of true bits."""
    seen = observe(model, [batch], operations=False)
    rows = memory_rows(model, seen.shapes, graph=seen.graph, input_bits=seen.input_bits, steps=seen.steps)
    return (flash_bits(rows) + ram_bits(rows)) / 8


def planned_bytes(model: nn.Module, plan: Plan, batch: Batch) -> float:
    """The same of a copy quantized by a plan."""
    dressed = copy.deepcopy(model)
    quantize_(dressed, plan, batch[0], quiet=True)
    return stored_bytes(dressed, batch)


def bits_by_layer(traces: Traces, weight: int, membrane: int) -> dict[tuple[str, str], int]:
    """Equal bits for everything that has a trace; eight for the rest, as `allocate` has it."""
    assert traces.facts is not None
    known = {(row.layer, row.role) for row in traces.rows}
    of = {"weight": weight, "membrane": membrane}
    return {key: of[key[1]] if key in known else KEPT for key in ((r.layer, r.role) for r in traces.facts.rows)}


def expected_rise(traces: Traces, bits: dict[tuple[str, str], int]) -> float:
    """``1/2 sum_l Tr(H_l) / n_l |Q(x_l) - x_l|^2``, the allocator's objective, of any bits."""
    return sum(traces.expected_rise(layer, role, bits[layer, role]).value for layer, role in traces.places())


def plan_of(bits: dict[tuple[str, str], int], template: Plan) -> Plan:
    """One rule a layer, bits from a table, the rest from the template."""
    rules: dict[str, dict[str, Any]] = {}
    for (layer, role), width in bits.items():
        given = template.layer(layer).model_dump(mode="json", exclude_none=True)
        rule = rules.setdefault(layer, {"match": literally(layer)})
        rule[role] = given.get(role, {}) | {"bits": width}
        if role == "membrane":
            rule |= {name: given[name] for name in ("leak", "current") if name in given}
    base = template.model_dump(mode="json", exclude_none=True)
    return Plan.from_dict({**base, "rules": list(rules.values())})


def told(bits: dict[tuple[str, str], int]) -> str:
    """Bits in a line: weights, then membranes, in the order of the layers.

    >>> told({("conv", "weight"): 2, ("lif", "membrane"): 8, ("fc", "weight"): 3})
    'W 2/3, U 8'
    """
    found = {role: "/".join(str(b) for (_, r), b in bits.items() if r == role) for role in ("weight", "membrane")}
    return ", ".join(f"{letter} {found[role]}" for letter, role in (("W", "weight"), ("U", "membrane")) if found[role])


def bits_of(plan: Plan, sensitivities: Sensitivities) -> dict[tuple[str, str], int]:
    """The bits of a plan by layer and role."""
    assert sensitivities.facts is not None
    found = {}
    for row in sensitivities.facts.rows:
        role = getattr(plan.layer(row.layer), row.role)
        found[row.layer, row.role] = 1 if role.bits is None else role.bits
    return found


def equal_plan(model: nn.Module, traces: Traces, most: float, widths: Widths, batch: Batch) -> Sized:
    """Of one width for all weights and one for all membranes: the least expected rise within `most` bytes.

    Raises:
        PlanError: none fits.
    """
    tables = [bits_by_layer(traces, *pair) for pair in widths.equal()]
    for bits in sorted(tables, key=lambda one: expected_rise(traces, one)):
        if _least_bytes(traces, bits) > most:
            continue
        plan = plan_of(bits, widths.template)
        size = planned_bytes(model, plan, batch)
        if size <= most:
            return Sized(plan, size, told(bits))
    raise PlanError(f"no equal bits of {widths.weight} and {widths.membrane} fit into {most:,.0f} bytes")


def equal_plans(model: nn.Module, traces: Traces, most: float, widths: Widths, batch: Batch) -> list[Sized]:
    """For each width of all weights the widest membranes with which the network has at most `most` bytes."""
    found = []
    for weight in widths.weight:
        for membrane in sorted(widths.membrane, reverse=True):
            bits = bits_by_layer(traces, weight, membrane)
            if _least_bytes(traces, bits) > most:
                continue
            plan = plan_of(bits, widths.template)
            size = planned_bytes(model, plan, batch)
            if size <= most:
                found.append(Sized(plan, size, told(bits)))
                break
    return found


def _least_bytes(traces: Traces, bits: dict[tuple[str, str], int]) -> float:
    assert traces.facts is not None
    return sum(row.count * bits[row.layer, row.role] for row in traces.facts.rows) / 8


def allocated_plan(model: nn.Module, sensitivities: Sensitivities, most: float, widths: Widths, batch: Batch) -> Sized:
    """The allocator's plan whose quantized network, counted, has at most `most` bytes.

    Raises:
        PlanError: none was found.
    """
    budget = most
    for _ in range(TRIES):
        found = allocate(
            sensitivities, budget, weight_widths=widths.weight, membrane_widths=widths.membrane,
            template=widths.template,
        )  # fmt: skip
        bits = bits_of(found, sensitivities)
        plan = plan_of(bits, widths.template)
        size = planned_bytes(model, plan, batch)
        if size <= most:
            return Sized(plan, size, told(bits))
        budget -= max(size - most, 1.0)
    raise PlanError(f"the allocator's plans stay above {most:,.0f} bytes")


def proposals(
    model: nn.Module, known: Sequence[Sensitivities], most: float, widths: Widths, batch: Batch
) -> dict[str, Sized]:
    """The allocator's plans within `most` bytes: with all widths, and without the narrowest of a role.

    The score of traces is a second-order term; it says little about two or three bits, where errors are as large as
    the values.  Plans that stand there already are left out, and those that nothing so wide fits.
    """
    narrowest = min(widths.weight)
    asked = {
        "all widths": widths,
        f"weights of {narrowest + 1} bits or more": replace(widths, weight=_from(widths.weight, narrowest + 1)),
        f"membranes of {CAREFUL} bits or more": replace(widths, membrane=_from(widths.membrane, CAREFUL)),
        f"membranes of {KEPT} bits or more": replace(widths, membrane=_from(widths.membrane, KEPT)),
    }
    found: dict[str, Sized] = {}
    for sensitivities, (name, allowed) in itertools.product(known, asked.items()):
        with contextlib.suppress(PlanError):
            one = allocated_plan(model, sensitivities, most, allowed, batch)
            if one.words not in {other.words for other in found.values()}:
                found[f"{sensitivities.name}, {name}"] = one
    return found


def _from(widths: tuple[int, ...], least: int) -> tuple[int, ...]:
    return tuple(bits for bits in widths if bits >= least)

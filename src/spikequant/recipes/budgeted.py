"""Two plans of the same memory, one with equal bits and one from the allocator, each trained on and measured."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.analyse import Traces, allocate, memory_rows, observe, paired_difference
from spikequant.law.errors import PlanError
from spikequant.measure import flash_bits, ram_bits
from spikequant.plan import Plan, literally
from spikequant.quantize import calibrate, freeze, lower, quantize_, verify
from spikequant.recipes.bits_and_losses import accuracy_and_loss
from spikequant.recipes.reproduction import plain_name
from spikequant.training import Batch, Batches, Evaluation, Loss, evaluate

TRIES = 12
"""How often the allocator's budget is lowered by what its plan weighs too much."""
KEPT = 8
Train = Callable[[nn.Module, str], None]


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


def bits_of(plan: Plan, traces: Traces) -> dict[tuple[str, str], int]:
    """The bits of a plan by layer and role."""
    assert traces.facts is not None
    found = {}
    for row in traces.facts.rows:
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


def allocated_plan(model: nn.Module, traces: Traces, most: float, widths: Widths, batch: Batch) -> Sized:
    """The allocator's plan whose quantized network, counted, has at most `most` bytes.

    Raises:
        PlanError: none was found.
    """
    budget = most
    for _ in range(TRIES):
        found = allocate(traces, budget, weight_widths=widths.weight, membrane_widths=widths.membrane)
        bits = bits_of(found, traces)
        plan = plan_of(bits, widths.template)
        size = planned_bytes(model, plan, batch)
        if size <= most:
            return Sized(plan, size, told(bits))
        budget -= max(size - most, 1.0)
    raise PlanError(f"the allocator's plans stay above {most:,.0f} bytes")


def measured_loss(model: nn.Module, sized: Sized, learn: Sequence[Batch], loss: Loss) -> float:
    """The loss on training batches of a copy that is quantized and calibrated, not trained."""
    dressed = copy.deepcopy(model)
    quantize_(dressed, sized.plan, learn[0][0], quiet=True)
    calibrate(dressed, learn)
    return accuracy_and_loss(dressed, learn, loss)[1]


def proposals(model: nn.Module, traces: Traces, most: float, widths: Widths, batch: Batch) -> dict[str, Sized]:
    """The allocator's plans within `most` bytes, with all widths and without the narrowest.

    The score is a second-order term; it says little about two bits, where errors are as large as the weights.
    """
    found = {"all widths": allocated_plan(model, traces, most, widths, batch)}
    careful = replace(widths, weight=tuple(b for b in widths.weight if b > min(widths.weight)))
    with contextlib.suppress(PlanError):  # nothing so wide fits
        found[f"weights of {min(careful.weight)} bits or more"] = allocated_plan(model, traces, most, careful, batch)
    return found


@dataclass(frozen=True)
class Outcome:
    """A quantized network on the test data."""

    sized: Sized
    untrained: float
    found: Evaluation
    differences: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "bits": self.sized.words, "bytes": self.sized.bytes, "before_training": self.untrained,
            "after": self.found.accuracy, "differences": self.differences,
        }  # fmt: skip


def outcome(
    model: nn.Module, sized: Sized, *, name: str, learn: Sequence[Batch], test: Batches, train: Train
) -> Outcome:
    """Quantize a copy, calibrate, train on, freeze; accuracies before and after the training.

    `train` is called with the quantized copy and `name`, under which it may keep a checkpoint.  The few samples that
    are compared with the golden model are the first ones of `learn`.
    """
    dressed = copy.deepcopy(model)
    quantize_(dressed, sized.plan, learn[0][0], quiet=True)
    calibrate(dressed, learn)
    untrained = evaluate(dressed, test).accuracy
    train(dressed, plain_name(f"{name} {sized.words}"))  # a checkpoint belongs to its bits
    freeze(dressed)
    found = evaluate(dressed, test)
    few = few_of(learn[0])
    return Outcome(sized, untrained, found, verify(dressed, lower(dressed, few), few).differences)


def few_of(batch: Batch, count: int = 8) -> Tensor:
    """The first samples of a batch, whichever axis counts them."""
    x, y = batch
    return x.narrow(0 if x.shape[0] == len(y) else 1, 0, min(count, len(y)))


def points(before: Evaluation, after: Evaluation) -> tuple[float, float]:
    """Paired change of accuracy in points, and half of its 95 % interval over samples."""
    right = [(e.predictions == e.targets).numpy().astype(np.int64) for e in (before, after)]
    return paired_difference(right[0], right[1])


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that a row needs of a trained network."""

    model: nn.Module
    traces: Traces
    learn: Sequence[Batch]
    test: Batches
    widths: Widths
    train: Train
    loss: Loss = F.cross_entropy
    share: float = 0.1


def compared(trial: Trial, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of a row: the real network, then equal bits and the allocator's plan in the same memory."""
    real = evaluate(trial.model, trial.test)
    whole = stored_bytes(trial.model, trial.learn[0])
    pairs = equal_plans(trial.model, trial.traces, trial.share * whole, trial.widths, trial.learn[0])
    if not pairs:
        raise PlanError(f"no equal bits fit into {trial.share * whole:,.0f} bytes")
    of_equal = {one.words: measured_loss(trial.model, one, trial.learn, trial.loss) for one in pairs}
    equal = min(pairs, key=lambda one: of_equal[one.words])
    for words, value in of_equal.items():
        say(f"  equal bits: {words}, training loss {value:.4f} before training on")
    tried = {**proposals(trial.model, trial.traces, equal.bytes, trial.widths, trial.learn[0]), "equal bits": equal}
    losses = {name: measured_loss(trial.model, sized, trial.learn, trial.loss) for name, sized in tried.items()}
    picked = min(losses, key=lambda name: losses[name])
    chosen = tried[picked]
    for name, sized in tried.items():
        say(f"  {name}: {sized.words}, training loss {losses[name]:.4f} before training on")
    found: dict[str, Outcome] = {}
    for name, sized in (("equal", equal), ("allocated", chosen)):
        if sized is equal and found:  # the same plan, trained on alike
            found[name] = found["equal"]
            continue
        say(f"  {name}: {sized.words}, {sized.bytes:,.0f} of {whole:,.0f} bytes")
        found[name] = outcome(trial.model, sized, name=name, learn=trial.learn, test=trial.test, train=trial.train)
    change, interval = points(real, found["allocated"].found)
    gain, gain_interval = points(found["equal"].found, found["allocated"].found)
    return {
        "before": real.accuracy,
        "after": found["allocated"].found.accuracy,
        "smaller": whole / chosen.bytes,
        "bytes": [whole, chosen.bytes],
        "change_points": change,
        "interval_points": interval,
        "gain_points": gain,
        "gain_interval": None if math.isnan(gain_interval) else gain_interval,
        "test_samples": real.samples,
        "outcomes": {name: one.to_dict() for name, one in found.items()},
        "proposals": {name: {"bits": s.words, "bytes": s.bytes, "loss": losses[name]} for name, s in tried.items()},
        "picked": picked,
        "equal_pairs": of_equal,
        "traces": trial.traces.to_dict(),
        "differences": sum(one.differences for one in found.values()),
        "how": f"{chosen.words}, {picked} (equal: {equal.words})",
    }


PATTERNS = ((8, 8, 16), (4, 4, 8))
"""The paper's bits by layer, for weights and states alike, and half of them."""


def by_hand(trial: Trial, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The paper's bits against equal bits and the allocator's in no more memory, without training, layer by layer."""
    whole = stored_bytes(trial.model, trial.learn[0])
    wide = replace(trial.widths, weight=(*range(2, 13), 14, 16), membrane=(*range(3, 13), 14, 16))
    return [_by_hand(trial, pattern, whole, wide, say) for pattern in PATTERNS]


def _by_hand(
    trial: Trial, pattern: tuple[int, ...], whole: float, wide: Widths, say: Callable[[str], None]
) -> dict[str, Any]:
    bits = bits_by_layer(trial.traces, KEPT, KEPT)
    for role in ("weight", "membrane"):
        layers = [row.layer for row in trial.traces.rows if row.role == role]
        bits |= {(layer, role): width for layer, width in zip(layers, pattern, strict=True)}
    plan = plan_of(bits, wide.template)
    hand = Sized(plan, planned_bytes(trial.model, plan, trial.learn[0]), told(bits))
    equal = equal_plan(trial.model, trial.traces, hand.bytes, wide, trial.learn[0])
    chosen = allocated_plan(trial.model, trial.traces, hand.bytes, wide, trial.learn[0])
    found: dict[str, Any] = {"pattern": "/".join(map(str, pattern)), "smaller": whole / hand.bytes}
    for name, sized in (("hand", hand), ("equal", equal), ("allocated", chosen)):
        one = outcome(trial.model, sized, name=name, learn=trial.learn, test=trial.test, train=lambda _net, _name: None)
        say(f"  {name}: {sized.words}: {one.found.accuracy:.2%}")
        found[name] = one.to_dict()
    return found

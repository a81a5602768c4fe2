"""Two plans of the same memory, one with equal bits and one from the allocator, each trained on and measured."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.analyse import Rises, Traces, paired_difference
from spikequant.analyse.score import Sensitivities
from spikequant.law.errors import PlanError
from spikequant.quantize import calibrate, freeze, lower, quantize_, verify
from spikequant.recipes.bits_and_losses import accuracy_and_loss
from spikequant.recipes.plans_of_a_size import (
    KEPT,
    Sized,
    Widths,
    allocated_plan,
    bits_by_layer,
    equal_plan,
    equal_plans,
    plan_of,
    planned_bytes,
    proposals,
    stored_bytes,
    told,
)
from spikequant.recipes.reproduction import plain_name
from spikequant.training import Batch, Batches, Evaluation, Loss, evaluate

Train = Callable[[nn.Module, str], None]


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
    """Everything that a row needs of a trained network.

    Attributes:
        model: the real network.
        traces: of its layers.
        learn: training batches; the loss on them chooses between plans.
        test: test batches.
        widths: what may be chosen.
        rises: what single layers add at few bits, measured; the allocator proposes plans by these, too.
        train: trains a quantized network on, under a name for its checkpoint.
        briefly: the same for a short while, before plans are chosen from; None: not at all.
        loss: of the training and of the choice.
        share: of the float memory.
    """

    model: nn.Module
    traces: Traces
    learn: Sequence[Batch]
    test: Batches
    widths: Widths
    train: Train
    rises: Rises | None = None
    briefly: Callable[[nn.Module], None] | None = None
    loss: Loss = F.cross_entropy
    share: float = 0.1

    def measured_loss(self, sized: Sized) -> float:
        """The loss on training batches of a copy that is quantized, calibrated and briefly trained."""
        dressed = copy.deepcopy(self.model)
        quantize_(dressed, sized.plan, self.learn[0][0], quiet=True)
        calibrate(dressed, self.learn)
        if self.briefly is not None:
            self.briefly(dressed)
        return accuracy_and_loss(dressed, self.learn, self.loss)[1]

    def outcome(self, sized: Sized, name: str) -> Outcome:
        """A plan, trained on and measured."""
        return outcome(self.model, sized, name=name, learn=self.learn, test=self.test, train=self.train)


def compared(trial: Trial, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of a row: the real network, then equal bits and the allocator's plan in the same memory."""
    real = evaluate(trial.model, trial.test)
    whole = stored_bytes(trial.model, trial.learn[0])
    pairs = equal_plans(trial.model, trial.traces, trial.share * whole, trial.widths, trial.learn[0])
    if not pairs:
        raise PlanError(f"no equal bits fit into {trial.share * whole:,.0f} bytes")
    of_equal = {one.words: trial.measured_loss(one) for one in pairs}
    equal = min(pairs, key=lambda one: of_equal[one.words])
    known: list[Sensitivities] = [trial.traces]
    if trial.rises is not None:
        known.append(trial.rises)
    tried = proposals(trial.model, known, equal.bytes, trial.widths, trial.learn[0])
    losses = {name: of_equal.get(one.words) or trial.measured_loss(one) for name, one in tried.items()}
    tried["equal bits"], losses["equal bits"] = equal, of_equal[equal.words]
    for name, loss in {**{f"equal bits {words}": loss for words, loss in of_equal.items()}, **losses}.items():
        say(f"  {name}: {tried[name].words if name in tried else ''} training loss {loss:.4f} before training on")
    picked = min(losses, key=lambda name: losses[name])
    chosen = tried[picked]
    found: dict[str, Outcome] = {}
    for name, sized in (("equal", equal), ("allocated", chosen)):
        if sized.words == equal.words and found:  # the same plan, trained on alike
            found[name] = found["equal"]
            continue
        say(f"  {name}: {sized.words}, {sized.bytes:,.0f} of {whole:,.0f} bytes")
        found[name] = trial.outcome(sized, name)
    return {
        **figures(real, found, whole),
        "proposals": {name: {"bits": s.words, "bytes": s.bytes, "loss": losses[name]} for name, s in tried.items()},
        "picked": picked,
        "equal_pairs": of_equal,
        "traces": trial.traces.to_dict(),
        "how": f"{chosen.words}, {picked} (equal: {equal.words})",
    }


def figures(real: Evaluation, found: Mapping[str, Outcome], whole: float) -> dict[str, Any]:
    """What a row says of the real network of `whole` bytes, equal bits and the allocator's."""
    allocated = found["allocated"]
    change, interval = points(real, allocated.found)
    gain, gain_interval = points(found["equal"].found, allocated.found)
    return {
        "before": real.accuracy,
        "after": allocated.found.accuracy,
        "smaller": whole / allocated.sized.bytes,
        "bytes": [whole, allocated.sized.bytes],
        "change_points": change,
        "interval_points": interval,
        "gain_points": gain,
        "gain_interval": None if math.isnan(gain_interval) else gain_interval,
        "test_samples": real.samples,
        "outcomes": {name: one.to_dict() for name, one in found.items()},
        "differences": sum(one.differences for one in found.values()),
    }


PATTERNS = ((8, 8, 16), (4, 4, 8))
"""The paper's bits by layer, for weights and states alike, and half of them."""


def by_hand(
    trial: Trial, say: Callable[[str], None], patterns: Sequence[tuple[int, ...]] = PATTERNS
) -> list[dict[str, Any]]:
    """The paper's bits against equal bits and the allocator's in no more memory, without training, layer by layer."""
    whole = stored_bytes(trial.model, trial.learn[0])
    wide = replace(trial.widths, weight=(*range(2, 13), 14, 16), membrane=(*range(3, 13), 14, 16))
    untrained = replace(trial, widths=wide, train=lambda _net, _name: None)
    return [_by_hand(untrained, pattern, whole, say) for pattern in patterns]


def _by_hand(trial: Trial, pattern: tuple[int, ...], whole: float, say: Callable[[str], None]) -> dict[str, Any]:
    bits = bits_by_layer(trial.traces, KEPT, KEPT)
    for role in ("weight", "membrane"):
        layers = [row.layer for row in trial.traces.rows if row.role == role]
        if len(layers) > len(pattern):
            raise PlanError(f"bits by hand: {len(pattern)} widths {pattern} for {len(layers)} layers")
        bits |= {(layer, role): width for layer, width in zip(layers, pattern, strict=False)}
    plan = plan_of(bits, trial.widths.template)
    hand = Sized(plan, planned_bytes(trial.model, plan, trial.learn[0]), told(bits))
    equal = equal_plan(trial.model, trial.traces, hand.bytes, trial.widths, trial.learn[0])
    chosen = allocated_plan(trial.model, trial.traces, hand.bytes, trial.widths, trial.learn[0])
    found: dict[str, Any] = {"pattern": "/".join(map(str, pattern)), "smaller": whole / hand.bytes}
    for name, sized in (("hand", hand), ("equal", equal), ("allocated", chosen)):
        one = trial.outcome(sized, name)
        say(f"  {name}: {sized.words}: {one.found.accuracy:.2%}")
        found[name] = one.to_dict()
    return found

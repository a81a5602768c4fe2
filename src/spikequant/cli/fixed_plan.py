"""A network quantized by a plan that is given: after training, or trained on for some epochs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spikequant.cli.after_training import AfterTraining
from spikequant.cli.figures import count, near_chance, what_was_quantized
from spikequant.cli.outcome import Outcome
from spikequant.cli.progress import bar
from spikequant.cli.recipe import Recipe
from spikequant.cli.run_folder import RunFolder
from spikequant.cli.screen import Screen
from spikequant.cli.starting_point import StartingPoint

if TYPE_CHECKING:
    from torch import nn

    from spikequant.analyse import Comparison
    from spikequant.plan import Plan
    from spikequant.quantize import QuantizeReport

VERIFY_SAMPLES = 32
CALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class Dressed:
    """A copy of the real network in its quantized layers, nothing calibrated yet."""

    model: nn.Module
    plan: Plan
    report: QuantizeReport


def dressed(start: StartingPoint, plan: Plan) -> Dressed:
    """Quantize a copy by `plan`; what cannot be honoured is found here, before a run folder is touched.

    Raises:
        PlanError, Unsupported, CaptureError: the plan or the network cannot be honoured.
    """
    from spikequant.quantize import quantize_

    model = copy.deepcopy(start.model)
    return Dressed(model, plan, quantize_(model, plan, start.data.first(VERIFY_SAMPLES), quiet=True))


def went_wrong(start: StartingPoint, model: nn.Module, comparison: Comparison) -> list[str]:
    """A sentence for each layer whose firing went wrong: the cause, and a change that was tried and helps."""
    from spikequant.analyse import diagnose

    return [f"warning: {finding}" for finding in diagnose(start.model, model, start.data.train, comparison=comparison)]


def quantize_by_plan(
    start: StartingPoint,
    work: Dressed,
    folder: RunFolder,
    screen: Screen,
    *,
    name: str,
    epochs: int,
    lr: float,
    recipe: Recipe,
    after_training: AfterTraining,
) -> Outcome:
    """Calibrate, match firing or train on where asked, freeze, compare on the test data, lower, verify.

    Raises:
        Interrupted: Ctrl-C while training on.
    """
    from spikequant.analyse import compare
    from spikequant.cli.training_loop import train_in_folder
    from spikequant.quantize import freeze, lower, verify

    data = start.data
    example = data.first(VERIFY_SAMPLES)
    model, plan, report = work.model, work.plan, work.report
    told = after_training.calibrated(
        model, start.model, data.train, CALIBRATION_BATCHES, lambda title: bar(screen.progress, title, None)
    )
    if epochs:
        facts = {"kind": "quantized", "plan": plan.to_dict()}
        train_in_folder(
            model, data, folder, screen, epochs=epochs, lr=lr, weight_facts=facts, recipe=recipe, teacher=start.model
        )
    weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
    frozen = freeze(model)
    with bar(screen.progress, "compare", 2 * len(data.test)) as shown:
        comparison = compare(start.model, model, shown.watch(data.test))
    with bar(screen.progress, "lower, verify", None):
        net = lower(model, example, metadata={"name": name, "plan": plan.to_dict(), "data": data.record["name"]})
        verified = verify(model, net, example)
    with bar(screen.progress, "diagnose", None):
        warnings = [*near_chance(comparison, data.classes), *went_wrong(start, model, comparison)]
    warnings += [f"warning: {text}" for text in frozen.warnings]
    if not epochs and comparison.difference + comparison.interval < 0:
        warnings.append(
            "The loss is more than chance. More bits help, or training on: the same command with --epochs 3."
        )
    how = f"in training ({count(epochs, 'epoch')})" if epochs else "after training"
    return Outcome(
        name=name,
        plan=plan,
        report=report,
        net=net,
        comparison=comparison,
        verified=verified,
        weights=weights,
        words=(f"Quantized {how}: {what_was_quantized(report)}.", *told, *report.notes),
        warnings=tuple(warnings),
    )

"""``spikequant quantize``: a trained network becomes integers, by a plan or as small as an accuracy limit allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli import options
from spikequant.cli import plan_options as fields
from spikequant.cli.after_training import AfterTraining, MatchFiringOption, WeightSolverOption
from spikequant.cli.datasets import DataChoice
from spikequant.cli.options import PLAN, TRAINING
from spikequant.cli.outcome import Outcome, tell_outcome, write_outcome
from spikequant.cli.plan_options import PlanFields, chosen_plan
from spikequant.cli.program import Interrupted
from spikequant.cli.provenance import command_line, versions
from spikequant.cli.recipe import Recipe, RecipeOption, recipe_options
from spikequant.cli.run_folder import RunConfig, RunFolder
from spikequant.cli.screen import Screen
from spikequant.cli.starting_point import Origin, StartingPoint, starting_point
from spikequant.cli.workers import is_first, joined
from spikequant.law.errors import PlanError

if TYPE_CHECKING:
    from spikequant.plan import Plan

MAX_DROP, SEARCH_EPOCHS = 0.5, 5


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What `quantize` was asked for; `plan` None means: search, within `max_drop` points."""

    origin: Origin
    plan: Plan | None
    max_drop: float
    strict: bool
    epochs: int
    lr: float
    batch_size: int
    recipe: Recipe
    seed: int
    after_training: AfterTraining


MaxDropOption = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="Find the smallest network that loses at most so many points of accuracy.",
        show_default=f"{MAX_DROP} if no plan is given",
        rich_help_panel=PLAN,
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="With --max-drop: the 95 % interval must keep it, too.", rich_help_panel=PLAN),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Train on, quantized, for so many epochs.",
        show_default=f"0 with a plan, {SEARCH_EPOCHS} for each training with --max-drop",
        rich_help_panel=TRAINING,
    ),
]


def quantize(
    ctx: typer.Context,
    network: options.NetworkOrRun,
    weights: options.WeightsOption = None,
    data: options.OptionalData = None,
    data_dir: options.DataDirOption = None,
    limit: options.LimitOption = None,
    fold: options.FoldOption = None,
    steps: options.StepsOption = None,
    step_ms: options.StepMsOption = None,
    window_ms: options.WindowMsOption = None,
    counts: options.CountsOption = None,
    download: options.DownloadOption = False,
    max_drop: MaxDropOption = None,
    strict: StrictOption = False,
    plan: fields.PlanOption = None,
    target: fields.TargetOption = None,
    weight_bits: fields.WeightBits = None,
    membrane_bits: fields.MembraneBits = None,
    weight_quantizer: fields.WeightQuantizer = None,
    weight_clipping: fields.WeightClipping = None,
    membrane_signed: fields.MembraneSigned = None,
    membrane_rounding: fields.MembraneRounding = None,
    membrane_levels: fields.MembraneLevels = None,
    input_bits: fields.InputBits = None,
    leak_bits: fields.LeakBits = None,
    threshold_bits: fields.ThresholdBits = None,
    bias_bits: fields.BiasBits = None,
    current_bits: fields.CurrentBits = None,
    weight_solver: WeightSolverOption = None,
    match_firing: MatchFiringOption = False,
    epochs: EpochsOption = None,
    lr: options.LearningRateOption = 1e-3,
    batch_size: options.BatchSizeOption = 64,
    recipe: RecipeOption = None,
    out: options.OutOption = Path("runs/quantize"),
    resume: options.ResumeOption = False,
    overwrite: options.OverwriteOption = False,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Quantize a trained network, prove its integers, and write them with a report.

    Examples:
      spikequant quantize runs/mnist --max-drop 0.5 --out runs/small
      spikequant quantize runs/mnist --weight-bits 4 --membrane-bits 8
      spikequant quantize runs/mnist --weight-bits 3 --weight-solver second_order --match-firing
      spikequant quantize net.py:build --weights w.pt --data mnist --plan p.toml

    With --max-drop it tries fewer and fewer bits, first after training, then in training. With
    a plan (a file, or bits as options) it does what the plan says. Every result is compared with
    the real network on the test data, and its integers are checked against the simulation,
    spike by spike.
    """
    found = chosen_plan(plan, PlanFields.of(ctx.params), seed=seed, target=target)
    _check(found, max_drop, strict, lr)
    choice = DataChoice(name=data, folder=data_dir, limit=limit, fold=fold, steps=steps, step_ms=step_ms,
                        window_ms=window_ms, counts=counts, download=download)  # fmt: skip
    asked = Quantization(
        origin=Origin(network, weights, choice), plan=found,
        max_drop=MAX_DROP if max_drop is None else max_drop, strict=strict,
        epochs=_epochs(epochs, found), lr=lr, batch_size=batch_size, recipe=_recipe(recipe, found, epochs), seed=seed,
        after_training=AfterTraining.asked(weight_solver, match_firing, has_plan=found is not None, epochs=epochs),
    )  # fmt: skip
    screen = Screen(as_json=as_json)
    with joined(out) as mine, RunFolder.open(mine, "quantize", resume=resume, overwrite=overwrite) as folder:
        outcome, record = _quantize(asked, folder, screen)
    if not is_first():
        return
    tell_outcome(outcome, folder, record["files"], screen)
    screen.document(record)
    if outcome.interrupted:
        raise Interrupted(_how_to_go_on())


def _epochs(given: int | None, plan: Plan | None) -> int:
    """What was asked for; else none with a plan, and some for each training of a search."""
    return given if given is not None else SEARCH_EPOCHS if plan is None else 0


def _quantize(asked: Quantization, folder: RunFolder, screen: Screen) -> tuple[Outcome, dict[str, Any]]:
    import torch

    from spikequant.cli.fixed_plan import dressed, quantize_by_plan
    from spikequant.cli.smallest import quantize_within
    from spikequant.plan import Plan

    start = starting_point(asked.origin, screen, batch_size=asked.batch_size, seed=asked.seed)
    torch.manual_seed(asked.seed)
    work = dressed(start, asked.plan or Plan.uniform(weight_bits=8, membrane_bits=8))
    folder.begin(_config(asked, start))
    screen.note(str(start.data))
    try:
        if asked.plan is None:
            outcome = quantize_within(
                start, folder, screen,
                max_drop=asked.max_drop, strict=asked.strict, epochs=asked.epochs, lr=asked.lr, seed=asked.seed,
            )  # fmt: skip
        else:
            name = short_name(asked.plan)
            outcome = quantize_by_plan(
                start, work, folder, screen, name=name, epochs=asked.epochs, lr=asked.lr, recipe=asked.recipe,
                after_training=asked.after_training,
            )  # fmt: skip
    except Interrupted:
        raise
    except KeyboardInterrupt as stopped:
        raise Interrupted(_how_to_go_on()) from stopped
    return outcome, write_outcome(outcome, folder, screen)


def _how_to_go_on() -> str:
    return f"interrupted; what is done is kept. Go on with\n  {command_line()} --resume"


def _config(asked: Quantization, start: StartingPoint) -> RunConfig:
    search = {"max_drop": asked.max_drop, "strict": asked.strict} if asked.plan is None else {}
    return RunConfig(
        command="quantize",
        command_line=command_line(),
        seed=asked.seed,
        options={
            "plan": None if asked.plan is None else asked.plan.to_dict(),
            **search,
            **({} if asked.plan is None else asked.after_training.record()),
            "epochs": asked.epochs,
            "lr": asked.lr,
            "batch_size": asked.batch_size,
            **recipe_options(asked.recipe),
            "weights": start.weights,
            "weights_sha256": start.weights_hash(),
        },
        network=start.source.record(),
        data=start.data.record,
        versions=versions(),
    )


def short_name(plan: Plan) -> str:
    """``W4/U8``: the fewest and most bits of weights and membranes that the plan asks for.

    >>> from spikequant.plan import Plan
    >>> short_name(Plan.uniform(weight_bits=4, membrane_bits=8))
    'W4/U8'
    >>> short_name(Plan.uniform(weight_quantizer="ternary"))
    'ternary'
    """
    parts = []
    for letter, role in (("W", "weight"), ("U", "membrane")):
        roles = [getattr(rule, role) for rule in plan.rules if getattr(rule, role) is not None]
        bits = sorted({r.bits for r in roles if r.bits is not None})
        names = sorted({r.quantizer for r in roles if r.bits is None})
        parts += [f"{letter}{bits[0]}" if len(bits) == 1 else f"{letter}{bits[0]}-{bits[-1]}"] if bits else []
        parts += names
    return "/".join(parts) or (plan.target or "plan").partition("/")[0]


def _recipe(words: list[str] | None, plan: Plan | None, epochs: int | None) -> Recipe:
    recipe = Recipe.of(words, quantized=True)
    if recipe and (plan is None or not epochs):
        raise PlanError("--recipe says how a plan is trained: give a plan (--weight-bits, --plan, ...) and --epochs")
    return recipe


def _check(plan: Plan | None, max_drop: float | None, strict: bool, lr: float) -> None:
    options.check_rate(lr)
    if plan is not None and (max_drop is not None or strict):
        word = "--max-drop" if max_drop is not None else "--strict"
        raise PlanError(
            f"{word} searches for a plan, so it excludes --plan, --target and the options of a plan; give one of them"
        )
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise PlanError(f"--max-drop {max_drop:g}: expected points of accuracy from 0 to 100, for example 0.5")

"""``spikequant explore``: many quantized networks are measured, the front is shown, one is chosen and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from spikequant.cli import explore_options as own
from spikequant.cli import options
from spikequant.cli.datasets import DataChoice
from spikequant.cli.program import CHECK_FAILED, Interrupted
from spikequant.cli.provenance import command_line, versions
from spikequant.cli.run_folder import RunConfig, RunFolder
from spikequant.cli.screen import Screen
from spikequant.cli.starting_point import Origin, StartingPoint, starting_point
from spikequant.law.errors import PlanError

MAY_CHANGE = ("trials", "objectives", "reward", "mu")
"""Options that a run may be resumed with other values of."""


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What `explore` was asked for."""

    origin: Origin
    space: Path | None
    sampler: str
    trials: int
    staged: bool
    target_accuracy: float | None
    max_drop: float
    objectives: tuple[str, ...]
    reward: str
    mu: float
    lr: float
    batch_size: int
    storage: str | None
    name: str
    ray: str | None
    seed: int


def explore(
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
    space: own.SpaceOption = None,
    target_accuracy: own.TargetOption = None,
    max_drop: own.DropOption = 1.0,
    sampler: own.SamplerOption = "tpe",
    trials: own.TrialsOption = 100,
    staged: own.StagedOption = False,
    objectives: own.ObjectivesOption = "accuracy,flash_bytes,ram_bytes",
    reward: own.RewardOption = "additive",
    mu: own.MuOption = 0.1,
    lr: options.LearningRateOption = 1e-3,
    batch_size: options.BatchSizeOption = 64,
    storage: own.StorageOption = None,
    name: own.NameOption = "explore",
    ray: own.RayOption = None,
    out: options.OutOption = Path("runs/explore"),
    resume: options.ResumeOption = False,
    overwrite: options.OverwriteOption = False,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Measure many quantized networks, show the Pareto front, and write the one of highest reward.

    Examples:
      spikequant explore runs/mnist --trials 300 --out runs/space
      spikequant explore runs/mnist --space space.toml --staged
      spikequant explore runs/mnist --storage postgresql://host/db

    Candidates are judged on the validation data, the chosen one is compared on the test data.
    Every finished trial is kept at once; --resume goes on behind the last one, also after a
    crash, and optuna-dashboard shows the study.
    """
    options.check_rate(lr)
    choice = DataChoice(
        name=data, folder=data_dir, limit=limit, fold=fold, steps=steps, step_ms=step_ms,
        window_ms=window_ms, counts=counts, download=download,
    )  # fmt: skip
    asked = Exploration(
        origin=Origin(network, weights, choice), space=space, sampler=sampler, trials=trials, staged=staged,
        target_accuracy=target_accuracy, max_drop=max_drop, objectives=tuple(objectives.split(",")), reward=reward,
        mu=mu, lr=lr, batch_size=batch_size, storage=storage, name=name, ray=ray, seed=seed,
    )  # fmt: skip
    screen = Screen(as_json=as_json)
    with RunFolder.open(out, "explore", resume=resume, overwrite=overwrite) as folder:
        record, kept, interrupted = _explore(asked, folder, screen)
    screen.document(record)
    if interrupted:
        raise Interrupted(_how_to_go_on())
    if not kept:
        raise typer.Exit(CHECK_FAILED)


def _explore(asked: Exploration, folder: RunFolder, screen: Screen) -> tuple[dict[str, Any], bool, bool]:
    """The JSON document, whether a candidate keeps the target, and whether Ctrl-C ended it."""
    from spikequant.cli.explored import explored
    from spikequant.explore.selection import objectives
    from spikequant.explore.space import USUAL, space_of

    objectives(asked.objectives)
    space = space_of(asked.space if asked.space is not None else USUAL)
    for option, given, known in (("reward", asked.reward, own.REWARDS), ("sampler", asked.sampler, own.SAMPLERS)):
        if given not in known:
            raise PlanError(f"--{option} {given}: expected one of {', '.join(known)}")
    start = starting_point(asked.origin, screen, batch_size=asked.batch_size, seed=asked.seed)
    folder.begin(_config(asked, start, space.key()), may_change=MAY_CHANGE)
    screen.note(str(start.data))
    screen.note(f"space: {space}")
    try:
        return explored(asked, space, start, folder, screen)
    except KeyboardInterrupt as stopped:
        raise Interrupted(_how_to_go_on()) from stopped


def _how_to_go_on() -> str:
    words = command_line()
    return f"interrupted; what is done is kept. Go on with\n  {words}{'' if '--resume' in words else ' --resume'}"


def _config(asked: Exploration, start: StartingPoint, key: str) -> RunConfig:
    return RunConfig(
        command="explore",
        command_line=command_line(),
        seed=asked.seed,
        options={
            "space": key,
            "sampler": asked.sampler,
            "trials": asked.trials,
            "staged": asked.staged,
            "target_accuracy": asked.target_accuracy,
            "max_drop": asked.max_drop,
            "objectives": list(asked.objectives),
            "reward": asked.reward,
            "mu": asked.mu,
            "lr": asked.lr,
            "batch_size": asked.batch_size,
            "name": asked.name,
            "weights": start.weights,
            "weights_sha256": start.weights_hash(),
        },
        network=start.source.record(),
        data=start.data.record,
        versions=versions(),
    )

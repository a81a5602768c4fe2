"""`explore`: measure candidates of a space, show the front, choose."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.explore.cluster import running
from spikequant.explore.engine import Runner
from spikequant.explore.evaluator import CALIBRATION_BATCHES
from spikequant.explore.ledger import Entry
from spikequant.explore.materials import EvaluatorSpec, belonging, materials_of
from spikequant.explore.progress import OnTrial, shown
from spikequant.explore.records import Evaluator, Measured
from spikequant.explore.result import Study
from spikequant.explore.reward import Reward, RewardForm
from spikequant.explore.selection import Objective, objectives, select
from spikequant.explore.space import Space, SpaceLike, space_of
from spikequant.explore.study import BATCH, BATCHES, DEFAULT_OBJECTIVES, Stopped, Trial, opened, run_study
from spikequant.explore.tolerance import Tolerance, alone_space, tolerances
from spikequant.law.errors import DataError
from spikequant.training import Batch, Loss

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def _check(model: Any, target_accuracy: float | None) -> None:
    if not isinstance(model, nn.Module):
        raise DataError(f"explore: expected a torch nn.Module as model, got {type(model).__name__}")
    if target_accuracy is not None and not 0 <= target_accuracy <= 1:
        raise DataError(f"explore: target_accuracy = {target_accuracy}; expected a share from 0 to 1, such as 0.95")


def explore(
    model: nn.Module,
    space: SpaceLike,
    batches: Iterable[Batch],
    target_accuracy: float | None = None,
    *,
    max_drop: float = 1.0,
    validation: Iterable[Batch] | None = None,
    example_input: Tensor | None = None,
    sampler: str = "tpe",
    trials: int = 100,
    staged: bool = False,
    wanted: Sequence[str | Objective] = DEFAULT_OBJECTIVES,
    reward: RewardForm = "additive",
    mu: float = 0.1,
    tolerance: float = 0.01,
    lr: float = 1e-3,
    loss: Loss = F.cross_entropy,
    seed: int = 0,
    batch: int | None = None,
    early_stop: bool = True,
    folder: str | Path | None = None,
    storage: str | None = None,
    name: str = "explore",
    resume: bool = True,
    ray: str | None = None,
    quiet: bool = False,
    on_trial: OnTrial | None = None,
) -> Study:
    """Measure candidates of a space on held-out data; the front of those that keep an accuracy, and one chosen.

    Every candidate is the real network quantized by its plan and calibrated (``ptq``) or trained on (``qat``, ``itq``).
    What it scores depends on `seed` and its settings alone.

    Args:
        model: a trained real network; never changed, candidates work on copies.
        space: a `Space`, its record, or a file that holds one.
        batches: ``(input, target)`` to calibrate and train on.
        target_accuracy: share of the deciding samples that a candidate must classify right.
        max_drop: without `target_accuracy`: points of accuracy that may be lost against the real network.
        validation: ``(input, target)`` that decide; None holds out every fourth sample of `batches`.
        example_input: for the capture; None takes the first batch.
        sampler: ``grid``, ``random``, ``tpe`` or ``nsga2``.
        trials: how many candidates are measured in all, those of earlier calls included; single roles (`staged`) come
            on top.
        staged: first every option of every role alone, then combinations of those that keep the target alone.
        wanted: objectives of the front and of the samplers: up to five of ``accuracy``, ``flash_bytes``,
            ``ram_bytes``, ``energy_pj``, ``emd``, ``dead``.
        reward: ``additive``, ``accuracy - mu * memory / memory of the real network``, or ``multiplicative``.
        mu: accuracy that all of the memory is worth (additive).
        tolerance: accuracy whose loss costs the factor e (multiplicative).
        lr: learning rate of trainings.
        loss: ``(output, target) -> scalar`` of trainings.
        seed: of proposals, trainings and noise.
        batch: candidates that are proposed and measured together; None: 64 for ``grid`` and ``random``, which learn
            nothing from one candidate for the next, 16 for ``tpe`` and ``nsga2``.
        early_stop: candidates that will not keep the target are given up before they saw all samples, by a sequential
            test that errs for one in ten thousand of those that do.
        folder: keeps every finished trial; a second call goes on from there.
        storage: URL of a database that keeps them instead and that workers may share.
        name: of the study in its storage.
        resume: False starts anew in `folder`.
        ray: address of a Ray cluster, or ``local``: candidates are measured there.
        quiet: no progress, no table.
        on_trial: called with every finished trial and the number of trials in all.

    Ctrl-C ends the exploration: the result holds what was measured, with ``interrupted`` set; before anything was it is
    raised on.

    Raises:
        PlanError: a mistake in the space, an unknown sampler.
        DataError: no data, NaN, targets that do not fit.
        ArtifactError: the study belongs to another network, data or settings, or cannot be written.
        Unsupported: Optuna (or Ray, where it is asked for) is not installed.
    """
    started = time.perf_counter()
    _check(model, target_accuracy)
    aims = objectives(wanted)
    where = space_of(space)
    materials, decide = materials_of(model, batches, validation, example_input, lr=lr, loss=loss, seed=seed)
    spec = EvaluatorSpec(materials=materials, decide=tuple(decide))
    real = spec.real()
    target = target_accuracy if target_accuracy is not None else real.accuracy - max_drop / 100
    spec = replace(spec, target_accuracy=target if early_stop else None)
    facts = _facts(spec, where, lr, loss, staged)
    search = _Search(
        space=where, aims=aims, sampler=sampler, trials=trials, seed=seed, batch=batch or BATCHES.get(sampler, BATCH),
        name=name, storage=storage, facts=facts, reference=real, target=target,
    )  # fmt: skip
    path = None if folder is None else Path(folder)
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(opened(storage, path, resume=resume))
        runner = stack.enter_context(running(spec, ray))
        told = stack.enter_context(shown(quiet, search.total(staged), on_trial))
        found, table, interrupted = search.run(at, runner, told, staged=staged)
    ranks = _ranks(real, reward, mu, tolerance)
    study = Study(
        space=where, trials=found, reference=real, target_accuracy=target, reward=ranks,
        selection=select([trial.measured for trial in found], aims, target_accuracy=target, reward=ranks),
        tolerance=table, materials=materials, interrupted=interrupted, seconds=time.perf_counter() - started,
    )  # fmt: skip
    if not quiet:
        print(study)  # noqa: T201
    return study


def _facts(spec: EvaluatorSpec, space: Space, lr: float, loss: Loss, staged: bool) -> dict[str, Any]:
    """What a study belongs to, besides its space, sampler, seed and objectives."""
    return {
        **belonging(spec.materials, spec.decide, None if space.trains else CALIBRATION_BATCHES),
        "lr": lr,
        "loss": getattr(loss, "__name__", type(loss).__name__),
        "early stop at": spec.target_accuracy,
        "staging": staged,
    }


def _behind(told: Callable[[Entry], None], before: int) -> Callable[[Entry], None]:
    """Who is told, with numbers that go on behind those of the first stage."""
    return lambda entry: told(replace(entry, number=entry.number + before))


def _ranks(real: Measured, form: RewardForm, mu: float, tolerance: float) -> Reward:
    return Reward(
        memory_reference=real.flash_bytes + real.ram_bytes,
        accuracy_reference=real.accuracy,
        form=form,
        mu=mu,
        tolerance=tolerance,
    )


@dataclass(frozen=True, kw_only=True)
class _Search:
    """What is to be done; `run` does it."""

    space: Space
    aims: tuple[Objective, ...]
    sampler: str
    trials: int
    seed: int
    batch: int
    name: str
    storage: str | None
    facts: Mapping[str, Any]
    reference: Measured
    target: float

    def total(self, staged: bool) -> int:
        """Trials in all, at most."""
        alone = alone_space(self.space).size if staged and self.space.varied else 0
        return alone + min(self.trials, self.space.size)

    def run(
        self, at: BaseStorage, runner: Evaluator | Runner, told: Callable[[Entry], None], *, staged: bool
    ) -> tuple[tuple[Trial, ...], Tolerance | None, bool]:
        """The trials, the tolerance table, and whether Ctrl-C ended it.

        Raises:
            KeyboardInterrupt: Ctrl-C before anything was measured.
        """
        found: tuple[Trial, ...] = ()
        table: Tolerance | None = None
        space = self.space
        try:
            if staged:
                alone = alone_space(space)
                found = self._study(at, runner, told, alone, "alone", sampler="grid", trials=alone.size)
                table = tolerances(space, found, self.reference, self.target)
                space = space.within(table.kept())
                told = _behind(told, len(found))
            found += self._study(at, runner, told, space, "combined", sampler=self.sampler, trials=self.trials)
        except Stopped as stopped:
            found += stopped.trials
            if not found:
                raise
            return found, table, True
        return found, table, False

    def _study(self, at: Any, runner: Any, told: Any, space: Space, stage: str, **options: Any) -> tuple[Trial, ...]:
        return run_study(
            space, runner, at=at, name=self._name(stage), stage=stage, told=told, wanted=self.aims, seed=self.seed,
            batch=self.batch, facts=self.facts, storage=self.storage, **options,
        )  # fmt: skip

    def _name(self, stage: str) -> str:
        return self.name if stage == "combined" else f"{self.name}/{stage}"

"""One study run to its end: storage, ledger, proposals and loop put together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from spikequant.explore.engine import Engine, InProcess, Runner, SharedEngine
from spikequant.explore.ledger import JOURNAL, Entry, Ledger, directions_of, open_storage
from spikequant.explore.proposals import distributions, proposer
from spikequant.explore.records import Candidate, Evaluator, Measured
from spikequant.explore.selection import Objective, objectives
from spikequant.explore.space import Space
from spikequant.law.errors import ArtifactError, PlanError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

LOCK = "study.lock"
VERSION = 1
DEFAULT_OBJECTIVES = ("accuracy", "flash_bytes", "ram_bytes")
BATCH = 16
BATCHES = {"grid": 64, "random": 64}
"""Candidates that are proposed and measured together: many where proposals learn nothing from results."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate of a study with what it scored; ``stage``: ``alone`` or ``combined``."""

    number: int
    candidate: Candidate
    measured: Measured
    stage: str = "combined"

    @property
    def name(self) -> str:
        """Its number, with the stage in front where that is not the last one: each stage counts from 0."""
        return str(self.number) if self.stage == "combined" else f"{self.stage} {self.number}"

    @property
    def was_refused(self) -> bool:
        """Whether there is no such network."""
        return self.measured.accuracy != self.measured.accuracy

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "number": self.number,
            "stage": self.stage,
            "key": self.candidate.key,
            "settings": dict(self.candidate.settings),
            "measured": self.measured.to_dict(),
        }


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with the trials that are finished."""

    def __init__(self, trials: tuple[Trial, ...]) -> None:
        super().__init__()
        self.trials = trials


@contextlib.contextmanager
def opened(storage: str | None, folder: Path | None, *, resume: bool = True) -> Iterator[BaseStorage]:
    """The storage of studies; a folder belongs to this process until the block ends.

    Args:
        storage: URL of a database that several workers may share.
        folder: holds the journal where no URL is given.
        resume: False removes the journal that is there.

    Raises:
        ArtifactError: another process explores in the folder, or it cannot be used.
    """
    lock: BinaryIO | None = None
    try:
        if storage is None and folder is not None:
            from spikequant.explore.log import locked

            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ArtifactError(f"cannot make the folder {folder}: {error.strerror or error}") from error
            lock = locked(folder / LOCK)
            if not resume:
                (folder / JOURNAL).unlink(missing_ok=True)
        yield open_storage(storage, folder)
    finally:
        if lock is not None:
            lock.close()


def run_study(
    space: Space,
    evaluator: Evaluator | Runner,
    *,
    sampler: str = "random",
    trials: int = 100,
    seed: int = 0,
    wanted: Sequence[str | Objective] = DEFAULT_OBJECTIVES,
    batch: int = BATCH,
    chunk: int | None = None,
    folder: Path | None = None,
    storage: str | None = None,
    at: BaseStorage | None = None,
    name: str = "explore",
    stage: str = "combined",
    facts: Mapping[str, Any] | None = None,
    sampler_options: Mapping[str, Any] | None = None,
    told: Callable[[Entry], None] | None = None,
    grace: float = 60.0,
    settle: float = 2.0,
) -> tuple[Trial, ...]:
    """Measure up to `trials` candidates of a space; a study that is there already goes on.

    Args:
        space: what may be tried.
        evaluator: who scores candidates in this process, or a runner that has them scored elsewhere.
        sampler: ``grid``, ``random``, ``tpe`` or ``nsga2``.
        trials: how many candidates in all, those of earlier calls included; never more than there are.
        seed: of the proposals.
        wanted: objectives of the samplers.
        batch: trials that are proposed together; with ``tpe`` and ``nsga2`` they do not know of each other.
        chunk: candidates that the evaluator gets at a time; what a kill may cost.  None: a batch.
        folder: where the journal of trials is kept, for this process alone.
        storage: URL of a database that keeps them instead, for several workers; with neither, they are in memory.
        at: a storage that is open already.
        name: of the study in its storage.
        stage: of the trials that are returned.
        facts: what the study belongs to besides (network, data); with others it is refused.
        sampler_options: of Optuna's sampler.
        told: called with every trial that this call finished.
        grace: seconds until a silent worker of a shared study is taken for dead.
        settle: seconds until a take-over of its trials is settled.

    Raises:
        ArtifactError: the study belongs to other settings, or its storage cannot be read or written.
        PlanError: no such sampler, or no trial.
        DataError: no such objective.
        Stopped: Ctrl-C; it holds the trials that are finished.
    """
    if trials < 1 or batch < 1:
        raise PlanError(f"explore: trials={trials}, batch={batch}; expected 1 or more")
    aims = objectives(wanted)
    runner = evaluator if isinstance(evaluator, Runner) else InProcess(evaluator, chunk)
    record = {
        "version": VERSION, "space": space.key(), "sampler": sampler, "seed": seed, "batch": batch,
        "objectives": [[aim.name, aim.direction] for aim in aims], **(facts or {}),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        opened_one = at if at is not None else stack.enter_context(opened(storage, folder))
        proposals = proposer(space, sampler, seed, directions_of(aims), sampler_options or {})
        ledger = Ledger(opened_one, name, aims, record, distributions(space.axes))
        options: dict[str, Any] = {"batch": batch, "told": told}
        engine = (
            Engine(space, ledger, proposals, runner, **options)
            if storage is None
            else SharedEngine(space, ledger, proposals, runner, **options, grace=grace, settle=settle)
        )
        try:
            engine.run(trials)
        except KeyboardInterrupt as stopped:
            raise Stopped(finished(space, ledger, stage)) from stopped
        return finished(space, ledger, stage)


def finished(space: Space, ledger: Ledger, stage: str = "combined") -> tuple[Trial, ...]:
    """The finished trials of a study."""
    return tuple(
        Trial(number=entry.number, candidate=space.candidate(entry.point), measured=entry.measured, stage=stage)
        for entry in ledger.entries()
        if entry.measured is not None and entry.state != "running"
    )

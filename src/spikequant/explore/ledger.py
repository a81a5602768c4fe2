"""The ledger of a study: every trial in a storage of Optuna, what it is, who works on it, what came out."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from spikequant.explore.proposals import quiet_optuna
from spikequant.explore.records import Candidate, Measured
from spikequant.explore.selection import Direction, Objective
from spikequant.law.errors import ArtifactError, Unsupported

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

FACTS, MEASURED, CANDIDATE, OWNER, SURPLUS = "spikequant", "measured", "candidate", "owner", "surplus"
JOURNAL = "journal.log"
State = Literal["running", "measured", "refused"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A trial as the storage has it."""

    number: int
    trial_id: int
    state: State
    point: Mapping[str, Any]
    owner: str | None
    measured: Measured | None


@final
class Ledger:
    """The trials of one study.

    Raises:
        ArtifactError: the study belongs to other settings, or the storage cannot be read or written.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        aims: Sequence[Objective],
        facts: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        import optuna

        self._storage, self.aims, self._distributions = storage, tuple(aims), dict(distributions)
        with typed_errors(), quiet_optuna():
            study = optuna.create_study(
                storage=storage, study_name=name, directions=directions_of(aims), load_if_exists=True
            )
            self._study_id = study._study_id
            before = study.user_attrs.get(FACTS)
            if before is None:
                study.set_user_attr(FACTS, json.loads(json.dumps(facts)))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    study.set_metric_names([aim.name for aim in aims])
        if before is not None:
            _check_same(before, json.loads(json.dumps(facts)), name)

    def entries(self) -> list[Entry]:
        """All trials in the order of their numbers."""
        with typed_errors():
            found = self._storage.get_all_trials(self._study_id, deepcopy=False)
        kept = [trial for trial in found if SURPLUS not in trial.user_attrs]
        return [_entry(trial) for trial in sorted(kept, key=lambda trial: trial.number)]

    def frozen(self, number: int) -> FrozenTrial:
        """A trial as samplers learn from it: one that was given up counts with the figures of the samples it saw."""
        import optuna

        with typed_errors():
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            found = self._storage.get_trial(trial_id)
        pruned, values = found.state == optuna.trial.TrialState.PRUNED, found.values
        if pruned:
            seen = Measured.from_dict(found.user_attrs[MEASURED])
            values = [float(getattr(seen, aim.name)) for aim in self.aims]
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if pruned else found.state,
            values=values,
            params=found.params,
            distributions=found.distributions,
            system_attrs=found.system_attrs,
        )

    def claim(self, owner: str) -> Entry:
        """A new trial with the next number; no two workers get the same."""
        with typed_errors():
            trial_id = self._storage.create_new_trial(self._study_id)
            self._storage.set_trial_user_attr(trial_id, OWNER, owner)
            return _entry(self._storage.get_trial(trial_id))

    def write_point(self, entry: Entry, point: Mapping[str, Any], notes: Mapping[str, Any], what: Candidate) -> None:
        """Write down which candidate a trial is; what is there already stays."""
        with typed_errors():
            for name, value in notes.items():
                self._storage.set_trial_system_attr(entry.trial_id, name, value)
            for name, value in point.items():
                if name not in entry.point:
                    distribution = self._distributions[name]
                    inner = distribution.to_internal_repr(value)
                    self._storage.set_trial_param(entry.trial_id, name, inner, distribution)
            self._storage.set_trial_user_attr(entry.trial_id, CANDIDATE, what.to_json())

    def own(self, entry: Entry, owner: str) -> None:
        """Say that a worker lives and works on a trial."""
        import optuna

        with typed_errors(), contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(entry.trial_id, OWNER, owner)

    def drop(self, entry: Entry) -> None:
        """Take back a number that is beyond what was asked for."""
        import optuna

        with typed_errors():
            self._storage.set_trial_user_attr(entry.trial_id, SURPLUS, True)
            self._storage.set_trial_state_values(entry.trial_id, optuna.trial.TrialState.FAIL)

    def finish(self, entry: Entry, measured: Measured) -> bool:
        """Acknowledge a result; False if another worker was first (its result is the same).

        A candidate that no integer network can be built of has no accuracy: it counts as refused.  One that was given
        up early is pruned, in Optuna's word, and has no values there: its accuracy is of other samples than the rest.
        """
        import optuna

        values = [float(getattr(measured, aim.name)) for aim in self.aims]
        refused = any(value != value or abs(value) == float("inf") for value in values)
        states = optuna.trial.TrialState
        state = states.FAIL if refused else states.PRUNED if measured.stopped_early else states.COMPLETE
        try:
            with typed_errors():
                self._storage.set_trial_user_attr(entry.trial_id, MEASURED, measured.to_dict())
                self._storage.set_trial_state_values(
                    entry.trial_id, state, values if state == states.COMPLETE else None
                )
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True


def directions_of(aims: Sequence[Objective]) -> list[Direction]:
    """Where each objective is good, in Optuna's words, which are ours."""
    return [aim.direction for aim in aims if aim.direction is not None]


def open_storage(storage: str | None, folder: Path | None) -> BaseStorage:
    """The storage of a URL (any database that SQLAlchemy has a driver for), or the journal in a folder, or memory.

    Raises:
        ArtifactError: it cannot be opened.
        Unsupported: Optuna, or the driver of the database, is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise Unsupported("explore needs Optuna; install it with: pip install 'spikequant[explore]'") from error
    if storage is not None:
        try:
            with typed_errors(), quiet_optuna():
                return optuna.storages.get_storage(storage)  # finished trials are read once
        except ImportError as error:
            raise Unsupported(f"--storage {_without_password(storage)}: {error}; install its driver") from error
        except ValueError as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(f"--storage {_without_password(storage)}: {error}") from error
    if folder is None:
        return optuna.storages.InMemoryStorage()
    from spikequant.explore.log import StudyLog

    return optuna.storages.JournalStorage(StudyLog(folder / JOURNAL))


@contextlib.contextmanager
def typed_errors() -> Iterator[None]:
    """Whatever a database says, as an `ArtifactError`."""
    import optuna

    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        cause = error.__cause__ or error
        text = str(cause).partition("\n")[0]
        raise ArtifactError(
            f"the storage of the study refused: {text}; what was recorded before is kept, go on with --resume"
        ) from error
    except Exception as error:
        if type(error).__module__.startswith("sqlalchemy"):
            text = str(error).partition("\n")[0]
            raise ArtifactError(f"the storage of the study cannot be used: {text}") from error
        raise


def _entry(trial: FrozenTrial) -> Entry:
    measured = trial.user_attrs.get(MEASURED)
    state: State = "running"
    if trial.state.is_finished():
        state = "measured" if trial.state.name in ("COMPLETE", "PRUNED") else "refused"
    return Entry(
        number=trial.number,
        trial_id=trial._trial_id,
        state=state,
        point=dict(trial.params),
        owner=trial.user_attrs.get(OWNER),
        measured=None if measured is None else Measured.from_dict(measured),
    )


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if other:
        raise ArtifactError(
            f"the study {name!r} was begun with another {' and '.join(other)}; give the same, or choose another "
            "folder (or name in the storage)"
        )


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.rpartition(':')[0]}:***@{tail}" if at and "://" in head and head.count(":") > 1 else url

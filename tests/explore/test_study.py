"""A study: what is proposed, what is kept, and that a study that was cut short goes on as if it had not been."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.explore.made import Formula, space

from spikequant.explore.records import Candidate, Measured
from spikequant.explore.space import Space
from spikequant.explore.study import run_study
from spikequant.law.errors import ArtifactError, PlanError

optuna = pytest.importorskip("optuna", reason="Optuna is an extra: explore")
SAMPLERS = ("grid", "random", "tpe", "nsga2")


class StopsAt:
    """Raises at a call, as Ctrl-C would."""

    def __init__(self, call: int) -> None:
        self.left, self.inner = call, Formula()

    def measure(self, candidates: Sequence[Candidate]) -> list[Measured]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.inner.measure(candidates)


def figures_of(trials: Sequence[object]) -> list[object]:
    return [(t.number, t.candidate.key, t.measured.to_dict()) for t in trials]  # type: ignore[attr-defined]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interrupted_anywhere_it_ends_the_same(sampler: str, tmp_path: Path) -> None:
    options = {"nsga2": {"population_size": 8}, "tpe": {"n_startup_trials": 8}}.get(sampler, {})

    def run(folder: Path, evaluator: object) -> list[object]:
        return figures_of(
            run_study(
                space(), evaluator, sampler=sampler, trials=24, batch=6, chunk=1, folder=folder, seed=3,
                wanted=("accuracy", "flash_bytes"), sampler_options=options,
            )  # type: ignore[arg-type]
        )  # fmt: skip

    whole = run(tmp_path / "whole", Formula())
    assert len({key for _, key, _ in whole}) == 24  # type: ignore[misc, attr-defined]
    for call in (0, 5, 6, 7, 16):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(call), StopsAt(call))
        assert run(tmp_path / str(call), Formula()) == whole


def test_other_seeds_propose_others() -> None:
    keys = {seed: [t.candidate.key for t in run_study(space(), Formula(), trials=20, seed=seed)] for seed in (0, 1)}
    assert keys[0] != keys[1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_space_is_exhausted_without_repeats(sampler: str) -> None:
    small = Space.from_dict(
        {"rules": [{"match": "*", "weight": {"bits": [1, 2, 3, 4, 6]}, "membrane": {"bits": [4, 8]}}]}
    )
    trials = run_study(small, Formula(), sampler=sampler, trials=100, batch=4)
    assert len(trials) == small.size == 10
    assert {t.candidate.key for t in trials} == {c.key for c in small.candidates()}


def test_what_is_refused_is_a_finished_trial_without_values(tmp_path: Path) -> None:
    trials = run_study(space(), Formula(), trials=80, folder=tmp_path)
    refused = [t for t in trials if t.was_refused]
    assert refused
    assert all(t.measured.refused == "made so" for t in refused)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.load_study(study_name="explore", storage=storage)
    states = [trial.state.name for trial in study.trials]
    assert states.count("FAIL") == len(refused)
    assert states.count("COMPLETE") == 80 - len(refused)
    assert study.metric_names == ["accuracy", "flash_bytes", "ram_bytes"]
    assert Candidate.from_json(study.trials[3].user_attrs["candidate"]) == trials[3].candidate


def test_another_study_in_the_folder_is_refused(tmp_path: Path) -> None:
    run_study(space(), Formula(), trials=2, folder=tmp_path, facts={"network": "a"})
    with pytest.raises(ArtifactError, match="begun with another seed and network"):
        run_study(space(), Formula(), trials=2, folder=tmp_path, seed=1, facts={"network": "b"})
    with pytest.raises(PlanError, match="sampler 'best'; expected one of grid"):
        run_study(space(), Formula(), sampler="best")
    with pytest.raises(PlanError, match="trials=0"):
        run_study(space(), Formula(), trials=0)


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    class Second:
        def measure(self, candidates: Sequence[Candidate]) -> list[Measured]:
            with pytest.raises(ArtifactError, match="explored by another process"):
                run_study(space(), Formula(), trials=2, folder=tmp_path)
            return Formula().measure(candidates)

    assert len(run_study(space(), Second(), trials=1, folder=tmp_path)) == 1


def test_more_trials_go_on_behind_the_others(tmp_path: Path) -> None:
    first = figures_of(run_study(space(), Formula(), trials=10, batch=4, folder=tmp_path))
    more = figures_of(run_study(space(), StopsAt(99), trials=14, batch=4, folder=tmp_path))
    assert more[:10] == first
    assert len(more) == 14


# --- the log ------------------------------------------------------------------------------


def test_a_log_cut_at_every_byte_of_its_tail_goes_on(tmp_path: Path) -> None:
    """Cut anywhere in the last records, a study resumes, and ends as it did; what was acknowledged stays."""
    whole = run_study(space(), Formula(), trials=6, batch=3, folder=tmp_path / "whole", seed=1)
    text = (tmp_path / "whole" / "journal.log").read_bytes()
    records = text.splitlines(keepends=True)
    tail = len(b"".join(records[-4:]))
    for cut in range(len(text) - tail, len(text)):
        folder = tmp_path / "cut"
        folder.mkdir()
        (folder / "journal.log").write_bytes(text[:cut])
        kept = text[:cut].count(b"\n") + (1 if text[cut : cut + 1] == b"\n" else 0)  # whole but for its line end
        assert figures_of(run_study(space(), Formula(), trials=6, batch=3, folder=folder, seed=1)) == figures_of(whole)
        after = (folder / "journal.log").read_bytes().splitlines(keepends=True)
        assert after[:kept] == records[:kept]
        assert all(json.loads(line) for line in after)
        shutil.rmtree(folder)


def test_any_cut_goes_on(tmp_path: Path) -> None:
    whole = run_study(space(), Formula(), trials=12, batch=4, folder=tmp_path / "whole", sampler="nsga2")
    text = (tmp_path / "whole" / "journal.log").read_bytes()
    for cut in random.Random(0).sample(range(len(text)), 25):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "journal.log").write_bytes(text[:cut] + b"\0" * (cut % 3))  # some file systems leave zeros behind
        again = run_study(space(), Formula(), trials=12, batch=4, folder=folder, sampler="nsga2")
        assert figures_of(again) == figures_of(whole)


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    run_study(space(), Formula(), trials=3, folder=tmp_path)
    log = tmp_path / "journal.log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:5], b'{"op_co\n', *lines[6:]]))
    with pytest.raises(ArtifactError, match="record 6 is damaged, and records follow it"):
        run_study(space(), Formula(), trials=3, folder=tmp_path)


def test_a_full_disk_keeps_the_old_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from spikequant.explore import log

    run_study(space(), Formula(), trials=3, folder=tmp_path, batch=1)
    before = (tmp_path / "journal.log").read_bytes()
    real = os.fsync

    def full(handle: int) -> None:
        real(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left on device; what was recorded before is kept"):
        run_study(space(), Formula(), trials=9, folder=tmp_path, batch=1)
    monkeypatch.undo()
    assert (tmp_path / "journal.log").read_bytes().startswith(before)
    assert len(run_study(space(), Formula(), trials=9, folder=tmp_path, batch=1)) == 9


def test_a_disk_that_is_really_full() -> None:
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("needs /dev/full")
    from spikequant.explore.log import StudyLog

    with pytest.raises(ArtifactError, match="cannot write the study /dev/full"):
        StudyLog(device).append_logs([{"op_code": 0}])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot make the folder"):
        run_study(space(), Formula(), trials=1, folder=tmp_path / "file" / "study")
    (tmp_path / "log" / "journal.log").mkdir(
        parents=True
    )  # what cannot be opened as a file; root may write anything else
    with pytest.raises(ArtifactError, match=r"cannot write the study .*journal.log: Is a directory"):
        run_study(space(), Formula(), trials=1, folder=tmp_path / "log")

"""SIGKILL at random times: nothing that was acknowledged is lost or done again, and the end is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.explore.made import Formula, space

from spikequant.explore.study import run_study

optuna = pytest.importorskip("optuna", reason="Optuna is an extra: explore")
ROOT = Path(__file__).resolve().parents[2]


def killed_study(folder: Path, **asked: Any) -> dict[str, Any]:
    words = json.dumps({"folder": str(folder), "seed": 0, **asked})
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    program = [sys.executable, "-m", "tests.explore.kills", words]
    run = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def check(folder: Path, found: dict[str, Any], trials: int, sampler: str, storage: Any = None) -> None:
    whole = run_study(
        space(), Formula(), sampler=sampler, trials=trials, batch=8, seed=5, wanted=("accuracy", "flash_bytes")
    )
    expected = [[t.number, t.candidate.key, None if t.was_refused else t.measured.accuracy] for t in whole]
    assert found["trials"] == expected, "the same trials, and so the same front, as without a kill"
    acknowledged: dict[int, str] = {}
    for kind, *words in found["witness"]:
        if kind == "acknowledged":
            number, key = words
            assert number not in acknowledged, "acknowledged twice"
            acknowledged[number] = key
        else:
            assert words[0] not in acknowledged.values(), "measured again after it was acknowledged"
    keys = {number: key for number, key, _ in found["trials"]}
    assert all(keys[number] == key for number, key in acknowledged.items()), "an acknowledged trial was lost"
    if storage is None:
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "study" / "journal.log"))
        storage = optuna.storages.JournalStorage(backend)
    study = optuna.load_study(study_name="explore", storage=storage)
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "FAIL"}, "a zombie"
    assert sum("surplus" not in trial.user_attrs for trial in study.trials) == trials


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_ten_kills(sampler: str, tmp_path: Path) -> None:
    found = killed_study(tmp_path, sampler=sampler, kills=10, trials=160, most_seconds=0.25)
    assert found["killed"] >= 5, "the study ended before it was killed often enough to say anything"
    check(tmp_path, found, 160, sampler)


@pytest.mark.conformance
def test_twenty_kills_of_a_worker_that_keeps_its_trials_in_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    found = killed_study(tmp_path, sampler="random", kills=20, trials=200, most_seconds=3.0, storage=url)
    print(f"\n{found['killed']} kills, {len(found['trials'])} trials in SQLite")
    assert found["killed"] == 20
    check(tmp_path, found, 200, "random", url)


@pytest.mark.conformance
def test_two_hundred_kills(tmp_path: Path) -> None:
    found = killed_study(tmp_path, sampler="random", kills=200, trials=576, most_seconds=0.12)
    print(f"\n{found['killed']} kills, {len(found['trials'])} trials")
    assert found["killed"] == 200
    check(tmp_path, found, 576, "random")

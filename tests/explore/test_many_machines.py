"""A study on a Ray cluster that loses a node, and one that workers share in PostgreSQL and lose a worker."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.explore.made import Formula, figures, space

from spikequant.explore.proposals import distributions
from spikequant.explore.study import run_study

optuna = pytest.importorskip("optuna", reason="Optuna is an extra: explore")
ROOT = Path(__file__).resolve().parents[2]
SQL_BIN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = pytest.mark.filterwarnings("default")  # those of Ray and of the driver are theirs


def worker(**asked: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    program = [sys.executable, "-m", "tests.explore.made", json.dumps(asked)]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def expected(trials: int) -> list[tuple[int, str]]:
    return [(t.number, t.candidate.key) for t in run_study(space(), Formula(), sampler="random", trials=trials)]


def check_shared(storage: str, trials: int, record: Path) -> None:
    study = optuna.load_study(study_name="explore", storage=storage)
    states = [trial.state.name for trial in study.trials if "surplus" not in trial.user_attrs]
    assert set(states) <= {"COMPLETE", "FAIL"}, "a zombie"
    found = run_study(
        space(), Formula(), sampler="random", trials=trials, storage=storage, grace=3.0, settle=0.3, batch=4
    )
    assert [(t.number, t.candidate.key) for t in found] == expected(trials)
    keys = [json.loads(line)[1] for line in record.read_text().splitlines()]
    assert set(keys) == {key for _, key in expected(trials)}
    assert len(keys) - len(set(keys)) <= 4, "more than the killed worker's batch was measured again"


def test_workers_share_a_database_and_one_is_killed(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    run_study(space(), Formula(), sampler="random", trials=1, storage=storage, grace=3.0, settle=0.3, batch=4)
    share(storage, tmp_path, trials=40)


def test_trials_of_a_worker_that_died_before_it_wrote_what_they_are(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    options: dict[str, Any] = {"sampler": "tpe", "batch": 3, "storage": url, "grace": 0.4, "settle": 0.1}
    run_study(space(), Formula(), trials=6, **options)
    storage = optuna.storages.RDBStorage(url)
    study = storage.get_all_studies()[0]._study_id
    begun = [storage.create_new_trial(study) for _ in range(2)]
    for axis in space().axes[:2]:  # and one of them in the middle of it
        distribution = distributions(space().axes)[axis.name]
        storage.set_trial_param(begun[1], axis.name, distribution.to_internal_repr(axis.choices[-1]), distribution)
    found = run_study(space(), Formula(), trials=12, **options)
    assert found[7].candidate.settings["*:weight.bits"] == 8
    for trial in found:
        wanted = figures(trial.candidate)
        assert trial.was_refused if wanted.refused else trial.measured == wanted
    assert [trial.number for trial in found] == list(range(12))
    assert len({trial.candidate.key for trial in found}) == 12


def share(storage: str, tmp_path: Path, *, trials: int) -> float:
    """Three workers, one of which is killed; returns the seconds that it took."""
    record = tmp_path / "record"
    for trial in run_study(space(), Formula(record), sampler="random", trials=1, storage=storage, batch=4):
        record.write_text(json.dumps([0, trial.candidate.key]) + "\n")
    started = time.monotonic()
    asked = {"storage": storage, "sampler": "random", "trials": trials, "seconds": 0.1, "record": str(record),
             "grace": 3.0, "settle": 0.3, "batch": 4}  # fmt: skip
    workers = [worker(**asked) for _ in range(3)]
    assert workers[0].stdout is not None
    workers[0].stdout.readline()  # it has acknowledged a trial, and is at work on the next
    workers[0].send_signal(signal.SIGKILL)
    for one in workers[1:]:
        _, errors = one.communicate(timeout=300)
        assert one.returncode == 0, errors
    workers[0].communicate()
    taken = time.monotonic() - started
    check_shared(storage, trials, record)
    return taken


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """A server of one's own in a folder; as another user where this one is root, which PostgreSQL refuses."""
    pytest.importorskip("psycopg2", reason="the driver of PostgreSQL")
    if not SQL_BIN:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql")
    root = getpass.getuser() == "root"
    if root and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root")
    folder = Path(f"/tmp/spikequant-sql-{os.getpid()}")
    folder.mkdir()
    shutil.chown(folder, "nobody") if root else None
    before = ["runuser", "-u", "nobody", "--"] if root else []

    def call(*words: str) -> None:
        done = subprocess.run([*before, *words], capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    data = str(folder / "data")
    call(str(SQL_BIN[-1] / "initdb"), "-D", data, "-U", "spike", "--auth=trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses=''"
    call(str(SQL_BIN[-1] / "pg_ctl"), "-D", data, "-w", "-o", options, "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql+psycopg2://spike@/postgres?host={folder}"
    finally:
        call(str(SQL_BIN[-1] / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.mark.conformance
def test_workers_share_postgresql_and_one_is_killed(postgres: str, tmp_path: Path) -> None:
    seconds = share(postgres, tmp_path, trials=120)
    print(f"\nPostgreSQL: 120 trials of 0.1 s by three workers, one killed: {seconds:.1f} s")


class Slow:
    """What travels to a cluster; each candidate takes a while."""

    def build(self) -> Formula:
        return Formula(seconds=0.2)


@pytest.mark.conformance
def test_a_node_of_a_ray_cluster_is_killed() -> None:
    pytest.importorskip("ray", reason="Ray is an extra: cluster")
    import ray
    from ray.cluster_utils import Cluster

    from spikequant.explore.cluster import RayRunner

    where = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    os.environ["PYTHONPATH"] = where
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": where}})
    try:
        told: list[int] = []

        def on_told(entry: Any) -> None:
            told.append(entry.number)
            if len(told) == 5:
                cluster.remove_node(other, allow_graceful=False)

        started = time.monotonic()
        found = run_study(
            space(), RayRunner(Slow(), chunk=1), sampler="random", trials=30, batch=30, told=on_told
        )  # fmt: skip
        print(f"\nRay: 30 trials of 0.2 s, one node of two killed: {time.monotonic() - started:.1f} s")
        assert [(t.number, t.candidate.key) for t in found] == expected(30)
        assert sorted(told) == list(range(30))
    finally:
        ray.shutdown()
        cluster.shutdown()

"""optuna-dashboard opens a study's journal as any other, and serves its trials."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.explore.made import Formula, space

optuna = pytest.importorskip("optuna", reason="Optuna is an extra: explore")
dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")

from spikequant.explore.ledger import JOURNAL  # noqa: E402
from spikequant.explore.study import run_study  # noqa: E402


def asked(app: Any, path: str) -> Any:
    """The answer of the server to a request, without a socket."""
    status: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "here", "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0), "wsgi.multithread": False, "wsgi.multiprocess": False, "wsgi.run_once": False,
        "CONTENT_TYPE": "application/json",
    }  # fmt: skip
    body = b"".join(app(environ, lambda line, *_: status.append(line)))
    assert status[0].startswith("200"), (status, body[:300])
    return json.loads(body)


@pytest.mark.filterwarnings("ignore")
def test_the_dashboard_serves_the_trials(tmp_path: Path) -> None:
    trials = run_study(space(), Formula(), sampler="random", trials=12, batch=4, folder=tmp_path, name="mine")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL)))
    app = dashboard.wsgi(storage)
    found = asked(app, "/api/studies")["study_summaries"]
    assert [study["study_name"] for study in found] == ["mine"]
    served = asked(app, f"/api/studies/{found[0]['study_id']}")["trials"]
    assert len(served) == 12
    finished = {trial["number"]: trial for trial in served if trial["state"] == "Complete"}
    measured = [trial for trial in trials if not trial.was_refused]
    assert len(finished) == len(measured) > 5
    for trial in measured:
        m = trial.measured
        assert [float(v) for v in finished[trial.number]["values"]] == [m.accuracy, m.flash_bytes, m.ram_bytes]
        assert finished[trial.number]["params"]


class Hasty:
    """Gives up every third candidate after half of the samples."""

    def __init__(self) -> None:
        self.whole = Formula()

    def measure(self, candidates: Any) -> list[Any]:
        found = self.whole.measure(candidates)
        hopeless = [int(c.key, 16) % 3 == 0 and not m.refused for c, m in zip(candidates, found, strict=True)]
        return [
            replace(m, stopped_early=True, accuracy=0.0) if no else m for m, no in zip(found, hopeless, strict=True)
        ]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_what_was_given_up_is_pruned_without_values_and_still_teaches(tmp_path: Path, sampler: str) -> None:
    options: dict[str, Any] = {"sampler": sampler, "trials": 24, "batch": 8, "folder": tmp_path, "name": "mine"}
    trials = run_study(space(), Hasty(), **options)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL)))
    kept = {t.number: t for t in optuna.load_study(study_name="mine", storage=storage).get_trials()}
    early = [t for t in trials if t.measured.stopped_early]
    assert early
    for trial in trials:
        state, values = kept[trial.number].state.name, kept[trial.number].values
        assert (state, values is None) in {("COMPLETE", False), ("PRUNED", True), ("FAIL", True)}
        assert (state == "PRUNED") == trial.measured.stopped_early
    assert run_study(space(), Hasty(), **options) == trials

"""``spikequant bench``."""

from __future__ import annotations

import json


def test_a_quick_run_writes_its_pages(run, tmp_path, monkeypatch):
    monkeypatch.setattr("spikequant.bench.subjects.LIBRARIES", {})
    done = run("bench", "--quick", "--workload", "mlp", "--out", tmp_path / "b", "--json")
    assert done.code == 0
    record = json.loads(done.out)
    assert record["command"] == "bench"
    assert {row["name"] for row in record["results"][0]["rows"]} >= {"spikequant, float", "spikequant, W8/U8"}
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["bench.html", "bench.json", "bench.md"]


def test_an_unknown_workload_is_bad_input(run, tmp_path):
    done = run("bench", "--workload", "resnet", "--out", tmp_path / "b")
    assert done.code == 2
    assert "expected some of conv, mlp, sew" in done.err

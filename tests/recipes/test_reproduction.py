"""Rows of a reproduction: which are run, which are kept, and what their mean says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import scipy.stats

from spikequant.law.errors import PlanError
from spikequant.recipes import reproduction
from spikequant.recipes.reproduction import Bench, Line, Recipe, Row, mean_and_interval, reproduce


def a_recipe() -> Recipe:
    def row(name: str) -> Row:
        return Row(name=name, line="line", seed=0, run=lambda _: {"before": 0.5, "after": 0.5, "smaller": 2.0})

    return Recipe(
        title="A paper",
        lines=(Line(name="line", paper=""),),
        rows=lambda _: [row("mnist-0"), row("mnist-1"), row("shd-0")],
        differences=(),
    )


def test_only_the_rows_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "recipe", lambda _: a_recipe())
    said: list[str] = []
    bench = Bench(folder=tmp_path, say=said.append)
    found = reproduce("q-spinn", "smoke", bench, only=["*-1"])
    assert (list(found["rows"]), found["not_run"]) == (["mnist-1"], ["mnist-0", "shd-0"])
    found = reproduce("q-spinn", "smoke", bench, only=["shd-*", "mnist-1"])
    assert (list(found["rows"]), found["not_run"]) == (["mnist-1", "shd-0"], ["mnist-0"])
    assert said == ["row 2 of 3: mnist-1", "row 3 of 3: shd-0"]  # a finished row is not run again
    assert reproduce("q-spinn", "smoke", bench)["not_run"] == []


def test_anew_with_patterns_replaces_those_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(name: str, bench: Bench) -> dict[str, float]:
        ran.append(name)
        work = bench.work(name)
        left = sum(1 for _ in work.iterdir())
        (work / f"checkpoint-{left}").touch()
        assert bench.work(name).joinpath(f"checkpoint-{left}").is_file()  # asked for again in the same run
        return {"before": 0.5, "after": 0.5, "smaller": 2.0, "left": left}

    names = ["mnist-0", "mnist-1", "shd-0"]
    rows = [Row(name=name, line="line", seed=0, run=partial(run, name)) for name in names]
    recipe = replace(a_recipe(), rows=lambda _: rows)
    monkeypatch.setattr(reproduction, "recipe", lambda _: recipe)
    bench = Bench(folder=tmp_path)
    reproduce("q-spinn", "smoke", bench)
    found = reproduce("q-spinn", "smoke", bench, only=["mnist-1"], anew=True)
    assert ran == [*names, "mnist-1"]
    assert (found["recipe"], list(found["rows"])) == ("q-spinn", names)
    assert found["rows"]["mnist-1"]["left"] == 0  # its checkpoints went, too
    assert all((tmp_path / "work" / name / "checkpoint-0").is_file() for name in names)
    reproduce("q-spinn", "smoke", bench, anew=True)
    assert ran == [*names, "mnist-1", *names]


def test_a_run_anew_that_was_cut_off_goes_on_without_old_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = False

    def run(name: str, bench: Bench) -> dict[str, float]:
        work = bench.work(name)
        left = sum(1 for _ in work.iterdir())
        (work / "checkpoint").touch()
        if stops and name == "mnist-0":
            raise KeyboardInterrupt
        return {"before": 0.5, "after": 0.5, "smaller": 2.0, "left": left}

    rows = [Row(name=name, line="line", seed=0, run=partial(run, name)) for name in ("mnist-0", "mnist-1", "shd-0")]
    recipe = replace(a_recipe(), rows=lambda _: rows)
    monkeypatch.setattr(reproduction, "recipe", lambda _: recipe)
    bench = Bench(folder=tmp_path)
    reproduce("q-spinn", "smoke", bench)
    stops = True
    with pytest.raises(KeyboardInterrupt):
        reproduce("q-spinn", "smoke", bench, only=["mnist-*"], anew=True)
    stops = False
    found = reproduce("q-spinn", "smoke", bench, only=["mnist-*"])
    assert {name: row["left"] for name, row in found["rows"].items()} == {"mnist-0": 1, "mnist-1": 0, "shd-0": 0}


def test_a_pattern_that_matches_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "recipe", lambda _: a_recipe())
    with pytest.raises(PlanError, match="'cifar' match nothing; the rows are mnist-0, mnist-1, shd-0"):
        reproduce("q-spinn", "smoke", Bench(folder=tmp_path), only=["mnist-0", "cifar"])
    assert not list(tmp_path.iterdir())


def test_interval_of_the_mean_is_that_of_student() -> None:
    for count in (2, 5, 12):
        values = [float(k * k) for k in range(count)]
        mean, margin = mean_and_interval(values)
        low, high = scipy.stats.t.interval(0.95, count - 1, loc=mean, scale=scipy.stats.sem(values))
        assert (mean - margin, mean + margin) == pytest.approx((low, high))

"""`spikequant explore` and `spikequant reproduce` at the shell."""

from __future__ import annotations

import json

import pytest

import spikequant as sq
from spikequant.cli.run_folder import RunConfig, RunFolder

pytest.importorskip("optuna", reason="Optuna is an extra: explore")
SPACE = """
[[rules]]
match = "*"
weight = { bits = [3, 8] }
membrane = { bits = [4, 8], rounding = "half_up" }
"""


def test_a_run_its_files_and_going_on(run, trained, tmp_path):
    space, out = tmp_path / "space.toml", tmp_path / "out"
    space.write_text(SPACE)
    asked = [
        "explore",
        trained,
        "--limit",
        "120",
        "--space",
        space,
        "--sampler",
        "grid",
        "--max-drop",
        "50",
        "--out",
        out,
    ]
    ended = run(*asked, "--trials", "2", "--json")
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert len(record["study"]["trials"]) == 2
    assert record["verify"]["differences"] == 0
    assert {"network.spq", "plan.toml", "report.html", "result.json", "study.html"} <= {p.name for p in out.iterdir()}
    assert "study.html" in record["files"]
    assert (out / "study" / "journal.log").is_file()
    assert sq.IntNet.load(out / "network.spq").metadata["plan"] == record["plan"]
    before = record["study"]["trials"]
    ended = run(*asked, "--trials", "4", "--resume")
    assert ended.code == 0, ended.err
    assert "The front on the validation data (> was chosen)" in ended.out
    after = json.loads((out / "result.json").read_text())["study"]["trials"]
    assert after[:2] == before
    assert len(after) == 4
    assert run(*asked, "--trials", "4").code == 2
    ended = run(*asked, "--trials", "1", "--overwrite", "--target-accuracy", "1.0", "--staged")
    assert ended.code in (0, 1), ended.err
    assert "What each role tolerates alone" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sampler", "best"], "--sampler best: expected one of grid, random, tpe, nsga2"),
        (["--reward", "most"], "--reward most: expected one of additive"),
        (["--objectives", "accuracy,speed"], "objective 'speed'"),
        (["--space", "absent.toml"], "cannot read the space absent.toml"),
    ],
)
def test_mistakes(run, trained, tmp_path, words, message):
    ended = run("explore", trained, *words, "--out", tmp_path / "out")
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "out").exists()


def test_reproduce_refuses_what_is_not_there(run, tmp_path):
    ended = run("reproduce", "q-spin", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "no recipe 'q-spin'; expected one of beyond-accuracy, hessian-aware, q-spinn, sigmoid-sum" in ended.err
    ended = run("reproduce", "q-spinn", "--scale", "huge", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "smoke, local, paper" in ended.err


def test_rows_of_another_scale_are_not_mixed(run, tmp_path):
    with RunFolder.open(tmp_path / "out", "reproduce") as folder:
        options = {"paper": "q-spinn", "scale": "smoke"}
        folder.begin(RunConfig(command="reproduce", command_line="", seed=0, options=options))
        folder.end("finished")
    words = ["reproduce", "q-spinn", "--scale", "local", "--rows", "mnist-0", "--overwrite", "--out", tmp_path / "out"]
    ended = run(*words)
    assert ended.code == 2
    assert "holds a run of `reproduce` (paper q-spinn, scale smoke, seed 0)" in " ".join(ended.err.split())
    assert "leave --rows out" in ended.err


def test_a_pattern_of_rows_that_matches_nothing_removes_nothing(run, tmp_path):
    with RunFolder.open(tmp_path / "out", "reproduce") as folder:
        options = {"paper": "q-spinn", "scale": "local"}
        folder.begin(RunConfig(command="reproduce", command_line="", seed=0, options=options))
        (tmp_path / "out" / "table.md").write_text("a table")
        folder.end("finished", ["table.md"])
    words = ["reproduce", "q-spinn", "--scale", "local", "--overwrite", "--out", tmp_path / "out"]
    ended = run(*words, "--rows", "mnist-O")
    assert ended.code == 2
    assert "rows 'mnist-O' match nothing" in " ".join(ended.err.split())
    assert (tmp_path / "out" / "table.md").read_text() == "a table"

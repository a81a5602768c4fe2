"""``--recipe`` and ``curves.svg``: settings reach the training, bad ones are refused before anything is loaded."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spikequant.cli.app import app
from spikequant.cli.curves import curves_svg
from spikequant.cli.recipe import MEANINGS, Recipe
from spikequant.law.errors import PlanError

NET = ["digits_net", "--data", "digits", "--limit", "64"]


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_train_and_quantize_with_a_recipe(tmp_path: Path) -> None:
    real, small = tmp_path / "real", tmp_path / "small"
    words = ["--recipe", "average=0.5", "--recipe", "schedule=restarts", "--recipe", "temporal=0.5"]
    run("train", *NET, "--epochs", 2, *words, "--out", real)
    lines = [json.loads(line) for line in (real / "metrics.jsonl").read_text().splitlines()]
    assert [list(line["terms"]) for line in lines] == [["TemporalLoss"]] * 2
    assert json.loads((real / "config.json").read_text())["options"]["recipe"]["average"] == "0.5"
    assert {"curves.svg", "metrics.jsonl"} <= set(json.loads((real / "config.json").read_text())["files"])
    recipe = {"distill": 1, "distill-rates": 2, "pull": 0.01, "start-bits": 6, "freeze-scales": 0.5, "average": 0.9}
    words = [word for key, value in recipe.items() for word in ("--recipe", f"{key}={value}")]
    plan = ["--weight-bits", 3, "--membrane-bits", 8, "--weight-quantizer", "lsq", "--epochs", 2]
    run("quantize", real, *plan, *words, "--out", small)
    lines = [json.loads(line) for line in (small / "metrics.jsonl").read_text().splitlines()]
    assert list(lines[0]["terms"]) == ["Distillation", "RateDistillation", "LevelPull"]
    picture = (small / "curves.svg").read_text()
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert picture.count("<polyline") == 6
    assert "curves.svg" in json.loads((small / "result.json").read_text())["files"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["warp=1"], "expected KEY=VALUE with one of schedule, temporal"),
        (["average"], "expected KEY=VALUE"),
        (["average=a lot"], "--recipe average=a lot: expected a number"),
        (["start-bits=6.5"], "expected a whole number"),
        (["average=0.9", "average=0.8"], "--recipe average is given twice: 0.9 and 0.8"),
    ],
)
def test_words_that_are_no_setting(words: list[str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Recipe.of(words, quantized=True)


def test_settings_where_they_have_no_meaning(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="distill is for quantized networks"):
        Recipe.of(["distill=1"], quantized=False)
    words = ["quantize", *NET, "--recipe", "average=0.9", "--out", tmp_path / "a"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code != 0
    assert isinstance(result.exception, PlanError) or "--recipe says how a plan is trained" in result.output
    assert not (tmp_path / "a").exists()


def test_every_setting_is_explained_in_the_help() -> None:
    text = " ".join(run("train", "--help").split())
    assert all(key in text for key in MEANINGS)


def test_curves_of_odd_figures() -> None:
    nothing = curves_svg([])
    records = [
        {"epoch": k, "loss": float("nan") if k == 2 else 1.0, "train_accuracy": 0.5, "validation_accuracy": None,
         "terms": {"<b>": k}}
        for k in (1, 2, 3)
    ]  # fmt: skip
    odd = curves_svg(records)
    for text in (nothing, odd):
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "nan" not in text
    assert "&lt;b&gt;" in odd
    assert odd.count("<circle") == 2 + 3 + 3

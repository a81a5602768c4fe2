"""The smallest scale of the papers that fine-tune: its figures counted again, and rows that survive a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import spikequant as sq
from spikequant.law.errors import DataError
from spikequant.recipes.finetuning import LEVELS, Course
from spikequant.recipes.papers import beyond_accuracy, sigmoid_sum
from spikequant.recipes.reproduction import Bench, reproduce

SMOKE = {"beyond-accuracy": beyond_accuracy.digits_net, "sigmoid-sum": sigmoid_sum.digits_net}
FLOATS = {"beyond-accuracy": "float-0", "sigmoid-sum": "digits-float-0"}


@pytest.fixture(scope="module", params=sorted(SMOKE))
def smoke(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, reproduce(request.param, "smoke", Bench(folder=folder))


def _float(paper: str, folder: Path) -> torch.nn.Module:
    model = SMOKE[paper](Bench(folder=folder))
    stored = load_file(folder / "work" / FLOATS[paper] / "float.safetensors")
    model.load_state_dict({k.removeprefix("model/"): v for k, v in stored.items() if k.startswith("model/")})
    return model.eval()


def _spikes(model: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Answers, and the rate of every neuron, by hooks of our own."""
    rates: dict[str, np.ndarray] = {}

    def keep(name: str) -> Any:
        return lambda _module, _given, out: rates.update({name: out.flatten(2).mean((0, 1)).double().numpy()})

    hooks = [m.register_forward_hook(keep(name)) for name, m in model.named_modules() if type(m).__name__ == "Neuron"]
    with torch.no_grad():
        answer = model(x)
    for hook in hooks:
        hook.remove()
    return answer, rates


def test_figures_are_those_of_the_networks_that_the_rows_keep(smoke: tuple[str, Path, dict[str, Any]]) -> None:
    paper, folder, found = smoke
    digits = sq.data.load_digits()
    x = torch.from_numpy(digits.test.x.astype(np.float32) / 16)
    y = torch.from_numpy(digits.test.y)
    answer, rates = _spikes(_float(paper, folder), x)
    right = float((answer.argmax(1) == y).double().mean())
    checked = 0
    for name, row in found["rows"].items():
        assert row["before"] == pytest.approx(right, abs=1e-9)
        for layer in row["layers"]:
            mine = rates[layer["layer"]]
            assert layer["reference_rate"] == pytest.approx(mine.mean(), abs=1e-6)
            assert abs(layer["rate"] - layer["reference_rate"]) <= layer["emd"] + 1e-9 <= layer["matched_l1"] + 2e-9
            assert layer["reference_quantiles"] == pytest.approx(np.percentile(mine, LEVELS), abs=1e-6)
        dead = np.concatenate(list(rates.values())) < 0.05
        assert row["reference_dead"] == pytest.approx(dead.mean(), abs=1e-9)
        assert row["emd"] == pytest.approx(np.mean([layer["emd"] for layer in row["layers"]]))
        if "control" in name:
            continue
        (file,) = (folder / "work").glob(f"{name}/network.spq")
        net = sq.IntNet.load(file)
        assert row["differences"] == 0
        assert sq.evaluate(net, [(x, y)]).accuracy == pytest.approx(row["after"], abs=1e-6)
        checked += 1
    assert checked >= 2
    assert right > 0.6  # alive
    assert 0 < np.concatenate(list(rates.values())).mean() < 1


def test_the_page_holds_the_rows(smoke: tuple[str, Path, dict[str, Any]]) -> None:
    _, folder, found = smoke
    text = (folder / "table.md").read_text()
    assert text == found["table"]
    for row in found["rows"].values():
        points = 100 * (row["after"] - row["before"])
        assert f"| {100 * row['after']:.2f} | {points:+.2f} ± {row['interval_points']:.2f} |" in text
        assert f"| {row['emd']:.4f} |" in text
    for file in found["files"]:
        assert (folder / file).stat().st_size > 200
    assert any(file.startswith("curves") for file in found["files"])
    assert any(file.startswith("rates") for file in found["files"])
    assert any(file.startswith("emd") for file in found["files"])


@pytest.mark.parametrize("smoke", ["sigmoid-sum"], indirect=True)
def test_a_killed_run_goes_on_and_ends_with_the_same_rows(
    tmp_path: Path, smoke: tuple[str, Path, dict[str, Any]]
) -> None:
    paper, _, whole = smoke
    out = tmp_path / "out"
    words = [sys.executable, "-m", "spikequant", "reproduce", paper, "--out", str(out)]
    running = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    first = out / "rows" / f"{next(iter(whole['rows']))}.json"
    deadline = time.monotonic() + 120
    while not first.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert first.exists()
    before = first.read_bytes()
    after = reproduce(paper, "smoke", Bench(folder=out))
    assert first.read_bytes() == before
    assert list(after["rows"]) == list(whole["rows"])
    for name, row in after["rows"].items():
        expected = {key: value for key, value in whole["rows"][name].items() if key != "seconds"}
        assert {key: value for key, value in row.items() if key != "seconds"} == expected


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar10"):
        beyond_accuracy.COURSES["local"].batches(Bench(folder=tmp_path, data_dir=tmp_path / "nothing"), 0)
    found = reproduce("sigmoid-sum", "paper", Bench(folder=tmp_path, data_dir=tmp_path / "nothing"))
    assert found["rows"] == {}
    assert "cifar10-dvs" in json.dumps(found["left_out"])


def test_a_course_tunes_on_the_first_samples() -> None:
    course = Course(data="digits", make=beyond_accuracy.digits_net, float_epochs=1, epochs=1, tuned_on=100)
    bench = Bench(folder=Path("unused"))
    whole, _ = course.batches(bench, 0)
    few = course.tuning(bench, 0)
    assert sum(len(y) for _, y in few) == 100
    assert sum(len(y) for _, y in whole) == 1257
    seen = sorted(float(v) for x, _ in few for v in x.flatten(1).sum(1))
    both = replace(course, tested_on=("validation", "test"))
    _, measured = both.batches(bench, 0)
    parts = [sq.data.load("digits").split(part).y.tolist() for part in both.tested_on]
    assert [int(label) for _, y in measured for label in y] == [label for part in parts for label in part]
    assert len(measured) == sum(1 for _ in measured)
    split = sq.data.load("digits").batches("train", batch_size=100)
    assert seen == sorted(float(v) for v in next(iter(split))[0].flatten(1).sum(1))

"""``spikequant sensitivity``: files, JSON, a budget handed to ``quantize``, and clear refusals."""

from __future__ import annotations

import json

import pytest

import spikequant as sq

pytest.importorskip("plotly", reason="the extra 'report' is not installed")
SHORT = ["--data", "digits", "--limit", "48", "--batches", "1", "--batch-size", "24", "--probes", "16"]


@pytest.fixture
def done(run, tmp_path):
    (tmp_path / "net.py").write_text(NETWORK, encoding="utf-8")
    network = f"{tmp_path / 'net.py'}:build"
    out = tmp_path / "bits"
    ended = run("sensitivity", network, *SHORT, "--budget", "0.2x", "--out", out, "--json")
    return network, out, ended


NETWORK = """
import torch
from torch import nn

import spikequant as sq


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 16), sq.nn.LIF(surrogate=sq.nn.Surrogate("atan", 2.0))
        self.fc2 = nn.Linear(16, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.fc2(self.lif1(self.fc1(x).expand(4, -1, -1))).mean(0)


def build():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.fc1.weight.mul_(4)
    return net
"""


def test_a_budget_becomes_a_plan_that_quantize_takes(run, done, tmp_path):
    network, out, ended = done
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert record["command"] == "sensitivity"
    assert {row["layer"] for row in record["side_by_side"]} == {"fc1", "lif1", "fc2"}
    assert record["allocation"]["share"] <= 0.2
    assert record["allocation"]["counted_bits"]["memory"] <= record["allocation"]["requested_bits"]["memory"]
    assert json.loads((out / "sensitivity.json").read_text())["allocation"]["plan"] == record["allocation"]["plan"]
    assert sq.Plan.load(out / "plan.toml").to_dict() == record["allocation"]["plan"]
    assert (out / "sensitivity.html").stat().st_size > 1e6
    assert json.loads((out / "config.json").read_text())["state"] == "finished"
    small = run(
        "quantize", network, "--data", "digits", "--limit", "48", "--plan", out / "plan.toml", "--out", tmp_path / "q"
    )
    assert small.code == 0, small.err


def test_methods_are_shown_side_by_side_as_words(run, done, tmp_path):
    network = done[0]
    ended = run(
        "sensitivity", network, *SHORT, "--method", "fisher", "--method", "loss-rise", "--role", "weight", "--out",
        tmp_path / "two",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "weight at 4 bits" in ended.out
    assert "rank, loss-rise" in ended.out
    assert "membrane" not in ended.out
    assert not (tmp_path / "two" / "plan.toml").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--method", "hesian"], "Did you mean hessian?"),
        (["--role", "leak"], "--role leak: expected one of weight, membrane"),
        (["--method", "fisher", "--method", "fisher"], "give each one once"),
        (["--budget", "small"], "--budget small: expected 0.1x"),
        (["--budget", "flash=small"], "--budget flash=small: expected 0.1x"),
        (["--budget", "flash=0.1x,ram=0.2x"], "--budget flash=0.1x,ram=0.2x: expected 0.1x"),
        (["--budget", "0x"], "--budget 0x: expected 0.1x"),
        (["--budget", "flush=0.1x"], "Did you mean flash?"),
        (["--budget", "0.1x", "--budget", "ram=9"], "--budget 0.1x: expected one size, or limits by name"),
        (["--target", "mcu-int8"], "give a --budget too"),
        (["--budget", "1x", "--target", "xylo"], "use CubaLIF(reset='subtract')"),
        (["--budget", "1"], "cannot be kept"),
        (["--probes", "3"], "--probes"),
    ],
)
def test_wrong_words_are_refused(run, tmp_path, words, text):
    (tmp_path / "net.py").write_text(NETWORK, encoding="utf-8")
    ended = run("sensitivity", f"{tmp_path / 'net.py'}:build", *SHORT, *words, "--out", tmp_path / "x")
    assert ended.code == 2
    assert text in " ".join(ended.err.split())
    assert not (tmp_path / "x").exists()


def test_limits_by_name_for_a_target(run, tmp_path):
    (tmp_path / "net.py").write_text(NETWORK.replace("self.fc2(", "self.lif2(self.fc2(").replace(")).mean", "))).mean").replace(
        "self.fc2 =", "self.lif2 = sq.nn.LIF(surrogate=sq.nn.Surrogate('atan', 2.0))\n        self.fc2 ="
    ), encoding="utf-8")  # fmt: skip
    limits = ["--budget", "flash=0.2x", "--budget", "ram=0.5x", "--target", "mcu-int8"]
    ended = run("sensitivity", f"{tmp_path / 'net.py'}:build", *SHORT, *limits, "--out", tmp_path / "mcu", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)["allocation"]
    assert set(found["counted_bits"]) == {"flash", "ram"}
    assert all(found["counted_bits"][name] <= most for name, most in found["requested_bits"].items())
    assert found["proven"]
    assert found["plan"]["target"] == "mcu-int8/1"
    assert max(row["bits"] for row in found["bits"] if row["role"] == "weight") <= 8

"""`spikequant targets` and `quantize --target`."""

from __future__ import annotations

import json

import pytest
from tests.targets.networks import loihi_network, xylo_network

import spikequant as sq

NET = """
import torch
from torch import nn

import spikequant as sq


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 24), sq.nn.LIF(leak=0.75, threshold=0.3)
        self.fc2, self.lif2 = nn.Linear(24, 10), sq.nn.LIF(leak=0.75, threshold=0.3)

    def forward(self, x):
        x = x.flatten(1).expand(6, -1, -1)
        return self.lif2(self.fc2(self.lif1(self.fc1(x)))).sum(0)


def build():
    torch.manual_seed(0)
    return Net()
"""


@pytest.fixture
def loihi_file(tmp_path):
    loihi_network(1).save(tmp_path / "loihi.spq")
    return tmp_path / "loihi.spq"


def test_the_list(run):
    done = run("targets")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()] == [t.tag for t in sq.targets.TARGETS.values()]
    assert "sizes only" in next(line for line in done.out.splitlines() if line.startswith("speck/1"))
    listed = json.loads(run("targets", "--json").out)["targets"]
    assert [t["tag"] for t in listed] == [t.tag for t in sq.targets.TARGETS.values()]


def test_one_in_detail(run):
    done = run("targets", "loihi-cuba")
    assert done.code == 0
    for text in ("-256 to 254 in steps of 2", "synapses into a neuron: 4,096", "lava b6822fb", "one per layer"):
        assert text in done.out
    assert "equality is not promised" in run("targets", "speck").out
    assert json.loads(run("targets", "xylo", "--json").out)["target"]["limits"]["outputs"] == 8


def test_a_network_is_checked(run, loihi_file, tmp_path):
    done = run("targets", "loihi-cuba", loihi_file)
    assert (done.code, done.err) == (0, "")
    assert "fits; " in done.out
    done = run("targets", "xylo", loihi_file)
    assert done.code == 1
    assert "does not fit" in done.out
    facts = json.loads(run("targets", "xylo", loihi_file, "--json").out)
    assert (facts["passed"], facts["target"]) == (False, "xylo/1")
    assert {"node", "limit", "text"} == set(facts["violations"][0])
    xylo_network(0, most_weight=2).save(tmp_path / "network.spq")
    assert run("targets", "xylo/1", tmp_path).code == 0  # a folder that holds it


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["xilo"], "did you mean 'xylo'"), (["xylo/2"], "this release has xylo/1"), (["xylo", "none.spq"], "none.spq")],
)
def test_bad_input(run, arguments, text):
    done = run("targets", *arguments)
    assert done.code == 2
    assert text in done.err


def test_quantize_for_a_target(run, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    start = f"{tmp_path / 'net.py'}:build"
    run("train", start, "--data", "digits", "--limit", "64", "--epochs", "1", "--out", tmp_path / "real")
    done = run("quantize", tmp_path / "real", "--target", "mcu-int8", "--out", tmp_path / "small")
    assert done.code == 0
    net = sq.IntNet.load(tmp_path / "small" / "network.spq")
    assert net.target == "mcu-int8/1"
    assert net.metadata["plan"]["target"] == "mcu-int8/1"
    assert run("targets", "mcu-int8", tmp_path / "small").code == 0
    done = run("quantize", tmp_path / "real", "--target", "xylo", "--out", tmp_path / "chip")
    assert done.code == 2
    assert "target xylo/1 cannot do this network" in done.err
    assert not (tmp_path / "chip").exists()
    done = run("quantize", tmp_path / "real", "--target", "xylo", "--max-drop", "1", "--out", tmp_path / "chip")
    assert done.code == 2

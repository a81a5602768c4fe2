"""`quantize_`: what it replaces, what it leaves, what it says."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from tests.quantize.nets import BATCH, CLASSES, HIDDEN, INPUTS, STEPS, W4U8, awake_, chain, spikes
from torch import nn

import spikequant as sq
from spikequant.nn import IF, LIF, FoldedNorm, LeakyIntegrator, QuantizedNeuron, Synapse
from spikequant.nn.over_time import OverTime

X = spikes(STEPS, BATCH, INPUTS)


def test_a_plan_that_quantizes_nothing_changes_no_bit():
    net = chain()
    twin, modules = copy.deepcopy(net), list(net.modules())
    report = sq.quantize_(net, sq.Plan(), X, quiet=True)
    assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
    assert torch.equal(net(X), twin(X))
    assert net(X).sum() > 0
    assert not report.quantized
    assert [(r.module, r.note) for r in report.skipped] == [
        (n, "no rule of the plan asks for it") for n in ("fc1", "lif1", "fc2", "lif2")
    ]


def test_parameters_keep_their_names_and_objects():
    net = chain(learn=("threshold",))
    before = dict(net.named_parameters())
    sq.quantize_(net, W4U8, X, quiet=True)
    after = dict(net.named_parameters())
    assert list(after) == list(before) == ["fc1.weight", "fc1.bias", "lif1.threshold", "fc2.weight", "fc2.bias"]
    assert all(after[name] is p for name, p in before.items())
    assert [type(m) for m in net] == [Synapse, QuantizedNeuron, Synapse, QuantizedNeuron]


def test_the_training_mode_is_kept():
    net = chain().train()
    net.fc2.eval()
    sq.quantize_(net, W4U8, X, quiet=True)
    assert [m.training for m in net] == [True, True, False, True]


class Wide(nn.Module):
    """One of everything that a report can say."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.lif1 = OverTime(nn.Conv2d(1, 2, 3)), OverTime(nn.BatchNorm2d(2)), LIF(leak=0.9)
        self.fc, self.lif2 = nn.Linear(8, CLASSES), LIF()
        self.unused, self.read = nn.Linear(3, 3), nn.Linear(CLASSES, 2)

    def forward(self, x):
        x = self.lif1(self.norm(self.conv(x))).flatten(2)
        return self.read(self.lif2(self.fc(x))).mean(0)


def test_the_report_lists_every_module():
    net = awake_(Wide())
    x = spikes(STEPS, BATCH, 1, 4, 4)
    plan = sq.Plan.from_dict(
        {"rules": [{"match": "lif2"}, {"match": "conv*", "weight": {"bits": 4}}, {"match": "lif1", "membrane": {"bits": 6, "signed": False}},
                   {"match": "fc", "weight": {"quantizer": "ternary"}}]}
    )  # fmt: skip
    weight = net.fc.weight.detach().clone()
    report = sq.quantize_(net, plan, x, quiet=True)
    rows = {(r.module, r.role): r for r in report.rows}
    assert set(rows) == {
        ("conv.layer", "weight"), ("norm.layer", "fold"), ("lif1", "membrane"), ("lif1", "leak"), ("fc", "weight"),
        ("lif2", "membrane"), ("lif2", "leak"), ("unused", "-"), ("read", "-"),
    }  # fmt: skip
    assert rows["unused", "-"].note == "not called in the forward pass"
    assert rows["read", "-"].note == "no rule of the plan asks for it"
    assert rows["lif2", "membrane"].note == "not asked: kept wide"
    assert (rows["conv.layer", "weight"].bits, rows["fc", "weight"].quantizer, rows["fc", "weight"].bits) == (
        4,
        "ternary",
        2,
    )
    assert (rows["lif1", "membrane"].low, rows["lif1", "membrane"].bits) == (0.0, 6)
    assert (rows["lif1", "leak"].bits, rows["lif2", "leak"].bits) == (8, 1)  # 0.9 needs all 8 bits, 0.5 one
    error = weight - (net.fc.codes() * net.fc.weight_scale).detach()
    assert rows["fc", "weight"].sqnr_db == pytest.approx(
        10 * math.log10(float((weight**2).sum() / (error**2).sum())), abs=1e-3
    )
    text = str(report)
    assert text.splitlines()[0].split() == [
        "module",
        "kind",
        "role",
        "quantizer",
        "bits",
        "range",
        "SQNR",
        "dB",
        "note",
    ]
    assert all(name in text for name in ("conv.layer", "norm.layer", "unused", "not called in the forward pass"))
    assert len(report.to_dict()["rows"]) == len(report.rows)
    assert isinstance(net.norm.layer, FoldedNorm)


def test_it_prints_unless_told_to_be_quiet(capsys):
    sq.quantize_(chain(), W4U8, X, quiet=True)
    assert capsys.readouterr().out == ""
    report = sq.quantize_(chain(), W4U8, X)
    assert capsys.readouterr().out == f"{report}\n"


def test_a_second_head_that_stays_real_is_always_told():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.first, self.second = chain(), LIF(leak=0.75), nn.Linear(CLASSES, 3)
            self.head = nn.Linear(CLASSES, 4)

        def forward(self, x):
            spikes = self.body(x)
            return self.first(self.head(spikes)).sum(0), self.second(spikes).sum(0)

    with pytest.warns(UserWarning, match="second feeds no neuron and is not the first output of the model: stays real"):
        report = sq.quantize_(Heads(), W4U8, X, quiet=True)
    assert "second" in {row.module for row in report.skipped}
    sq.quantize_(Heads(), sq.Plan.from_dict({"rules": [{"match": "body*", "weight": {"bits": 4}}]}), X, quiet=True)


def test_twice_is_refused():
    net = chain()
    sq.quantize_(net, W4U8, X, quiet=True)
    with pytest.raises(
        sq.Unsupported,
        match=r"this model is quantized already; start again from the real one \(for example a deep copy",
    ):
        sq.quantize_(net, W4U8, X, quiet=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(bad):
    net = chain()
    with torch.no_grad():
        net.fc2.weight[0, 0] = bad
    with pytest.raises(
        sq.DataError,
        match=r"fc2.weight holds NaN or infinite values; expected finite numbers \(did the training diverge\?\)",
    ):
        sq.quantize_(net, W4U8, X, quiet=True)
    x = X.clone()
    x[0, 0, 0] = bad
    with pytest.raises(sq.DataError, match="example_input holds NaN or infinite values"):
        sq.quantize_(chain(), W4U8, x, quiet=True)


def test_a_failure_leaves_the_model_as_it_was():
    net = chain(last=lambda: LIF(order="leak_last"))
    twin = copy.deepcopy(net)
    plan = {
        "fraction_bits": 24,
        "rules": [{"match": "*2", "weight": {"bits": 16}, "leak": {"bits": 24}}, {"match": "*", "weight": {"bits": 4}}],
    }
    net.lif2.leak.fill_(0.123)
    twin.lif2.leak.fill_(0.123)
    with pytest.raises(sq.WidthError, match="bits"):
        sq.quantize_(net, sq.Plan.from_dict(plan), X, quiet=True)
    assert [type(m).__name__ for m in net] == ["Linear", "Neuron", "Linear", "Neuron"]
    assert torch.equal(net(X), twin(X))


@torch.no_grad()
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_weights_alone_keep_the_membrane_wide(bits):
    """A register that is not asked for must not saturate, however fine the weights are."""
    net = awake_(nn.Sequential(nn.Linear(INPUTS, HIDDEN), IF(), nn.Linear(HIDDEN, CLASSES), LIF(leak=0.75)))
    twin = copy.deepcopy(net)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=bits, weight_clipping="max"), X, quiet=True)
    for fine, coarse in ((net[0], twin[0]), (net[2], twin[2])):
        with torch.no_grad():
            coarse.weight.copy_(fine.codes() * fine.weight_scale)
    a, b = net(X), twin(X)
    assert 0.1 < float(b.mean()) < 0.9
    assert float((a != b).float().mean()) < 0.02


@torch.no_grad()
def test_the_wide_register_reaches_far_beyond_the_threshold():
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 4), LIF(leak=0.9375, reset="none", threshold=0.5)), drive=0.3)
    with torch.no_grad():
        net[0].weight.abs_().mul_(0.75)
    twin = copy.deepcopy(net)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=16, weight_clipping="max"), X, quiet=True)
    net[1].watch, twin[1].watch = [], []
    net(X), twin(X)
    found = net[1].integers()
    got, real = net[1].watch[-1]["v"] * found.params["v_load"] * found.lsb, twin[1].watch[-1]["v"]
    assert float(real.min()) > 5.0
    assert float((got - real).abs().max()) < 0.01


REFUSED = {
    "current to two places": "fc: its currents go to several places",
    "neuron without weights": "second: fed by spikes of first without weights between; put a weighted layer in front of the neuron",
    "joined kinds": "add joins current and spikes; expected one kind of value",
}


class Odd(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.fc, self.first, self.second = kind, nn.Linear(INPUTS, INPUTS), LIF(), LIF()

    def forward(self, x):
        current = self.fc(x)
        a = self.first(current)
        if self.kind == "current to two places":
            return (a + self.second(current)).sum(0)
        if self.kind == "neuron without weights":
            return self.second(a).sum(0)
        return self.second(self.fc2(a) + a).sum(0)


@pytest.mark.parametrize("kind", REFUSED)
def test_networks_without_an_integer_form(kind):
    net = Odd(kind)
    net.fc2 = nn.Linear(INPUTS, INPUTS)
    with pytest.raises(sq.Unsupported, match=re.escape(REFUSED[kind])):
        sq.quantize_(net, W4U8, X, quiet=True)


def test_a_bias_that_is_not_there_is_noted():
    net = nn.Sequential(nn.Linear(INPUTS, 3, bias=False), LIF())
    report = sq.quantize_(net, sq.Plan.uniform(weight_bits=4, bias_bits=4), X, quiet=True)
    assert "0: the plan asks for a bias quantizer, but the layer has no bias" in report.notes


def test_a_readout_without_a_neuron_and_one_that_integrates():
    net = awake_(nn.Sequential(nn.Linear(INPUTS, HIDDEN), LIF(), nn.Linear(HIDDEN, CLASSES), LeakyIntegrator()))
    sq.quantize_(net, W4U8, X, quiet=True)
    assert net[2].weight_scale.numel() == 1  # one scale for all classes, rule 7
    assert net[0].weight_scale.numel() == HIDDEN

"""`quantize_(..., target=)`: the target chooses specs and widths, or refuses with every layer and limit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import IF, LIF, CubaLIF, Neuron


class Two(nn.Module):
    """Two dense layers."""

    def __init__(self, neuron, *, inputs=12, hidden=20, outputs=8, bias=False):
        super().__init__()
        self.a, self.n1 = nn.Linear(inputs, hidden, bias=bias), neuron()
        self.b, self.n2 = nn.Linear(hidden, outputs, bias=bias), neuron()

    def forward(self, x):
        return self.n2(self.b(self.n1(self.a(x)))).sum(0)


class Picture(nn.Module):
    """A convolution, a pooling, a dense layer."""

    def __init__(self, *, side=8, kernel=3, channels=4):
        super().__init__()
        self.a, self.n1 = nn.Conv2d(1, channels, kernel), IF()
        self.pool, self.flat = nn.AvgPool2d(2), nn.Flatten(2)
        self.b, self.n2 = nn.Linear(channels * ((side - kernel + 1) // 2) ** 2, 10, bias=False), IF()

    def forward(self, x):
        time, batch = x.shape[:2]
        spikes = self.n1(self.a(x.flatten(0, 1)).unflatten(0, (time, batch)))
        pooled = self.pool(spikes.flatten(0, 1)).unflatten(0, (time, batch))
        return self.n2(self.b(self.flat(pooled))).sum(0)


def cuba(reset):
    return lambda: CubaLIF(leak=0.9, leak_i=0.75, threshold=0.5, reset=reset)


CASES = {
    "mcu-int8": (lambda: Two(lambda: LIF(leak=0.9, threshold=0.3), bias=True), (30, 6, 12)),
    "mcu-int8 with a current": (lambda: Two(cuba("subtract"), bias=True), (30, 6, 12)),
    "loihi-cuba": (lambda: Two(cuba("zero")), (30, 6, 12)),
    "loihi-cuba without a current": (lambda: Two(lambda: LIF(leak=0.9, threshold=0.3), bias=True), (30, 6, 12)),
    "xylo": (lambda: Two(cuba("subtract")), (30, 6, 12)),
    "speck": (Picture, (10, 3, 1, 8, 8)),
}


def made(name):
    torch.manual_seed(0)
    model, shape = CASES[name][0](), CASES[name][1]
    return model, (torch.rand(shape) < 0.5).float(), name.split()[0]


@pytest.mark.parametrize("name", CASES)
def test_the_journey_to_a_target(name):
    model, x, target = made(name)
    report = sq.quantize_(model, sq.Plan(), x, target=target, quiet=True)
    assert any("fits; " in note for note in report.notes)
    sq.calibrate(model, [x])
    sq.freeze(model)
    net = sq.lower(model, x)
    assert net.target == f"{target}/1"
    assert sq.targets.check(net).passed
    found = sq.verify(model, net, x)
    assert found.spikes > 0
    assert not found.differences


def test_what_speck_cannot_store_is_refused():
    """Biases have the 8 bits and the scale of the weights, a layer has one threshold in 16 bits."""
    model, x, target = made("speck")
    sq.quantize_(model, sq.Plan(), x, target=target, quiet=True)
    sq.calibrate(model, [x])
    sq.freeze(model)
    net = sq.lower(model, x)
    first = net.neurons[0]

    def limits(**changes):
        nodes = tuple(dataclasses.replace(n, **changes) if n.name == first.name else n for n in net.nodes)
        report = sq.targets.check(dataclasses.replace(net, nodes=nodes, vectors=None))
        return {violation.limit for violation in report.violations}

    big, wide = np.array(10**5), np.array([1, 2, 3, 400]).reshape(4, 1, 1)
    assert limits() == set()
    assert limits(params={**first.params, "bias": big}) == {"bias"}
    assert limits(params={**first.params, "theta": big, "reset": big}) == {"theta", "reset"}
    assert limits(params={**first.params, "reset": first.params["reset"] - 1}) == {"theta"}
    assert limits(gains=(wide,)) == {"weight"}

    loud = Picture()
    with torch.no_grad():
        loud.a.bias.mul_(50)
    with pytest.raises(sq.Unsupported, match=r"n1: bias = .*; this target takes -128 to 127"):
        sq.quantize_(loud, sq.Plan(), x, target=target, quiet=True)


@pytest.mark.parametrize("name", ["xylo", "loihi-cuba"])
def test_training_on_a_target(name):
    model, x, target = made(name)
    sq.quantize_(model, sq.Plan(target=target), x, quiet=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert all(not torch.equal(before[k], v) for k, v in model.named_parameters())
    assert all(torch.isfinite(v).all() for v in model.parameters())


def test_specs_are_those_of_the_profile():
    model, x, _ = made("xylo")
    sq.quantize_(model, sq.Plan(), x, target="xylo", quiet=True)
    sq.freeze(model)
    net = sq.lower(model, x)
    hidden, out = net.neurons
    assert hidden.spec.spikes_max == 31
    assert out.spec.spikes_max == 1
    assert hidden.spec.leak.form == hidden.spec.leak_i.form == "shift_forced"
    assert int(hidden.params["leak"]) == 3
    assert int(hidden.params["leak_i"]) == 2
    assert (hidden.params["theta"] == hidden.params["reset"]).all()


def test_the_plan_names_the_target(tmp_path):
    plan = sq.Plan.from_dict({"target": "loihi-cuba"})
    plan.save(tmp_path / "plan.toml")
    assert sq.Plan.load(tmp_path / "plan.toml") == plan
    assert (tmp_path / "plan.toml").read_text().splitlines()[-1] == 'target = "loihi-cuba"'
    model, x, _ = made("loihi-cuba")
    with pytest.raises(sq.PlanError, match=r"the plan is for loihi-cuba, and target='xylo' was asked for"):
        sq.quantize_(model, plan, x, target="xylo", quiet=True)
    sq.quantize_(model, plan, x, quiet=True)
    sq.freeze(model)
    assert sq.lower(model, x).target == "loihi-cuba/1"


def test_plans_choose_what_the_target_leaves_open():
    model, x, _ = made("mcu-int8")
    plan = sq.Plan.from_dict(
        {"rules": [{"match": "b", "weight": {"bits": 4}}, {"match": "n1", "membrane": {"bits": 9}}]}
    )
    sq.quantize_(model, plan, x, target="mcu-int8", quiet=True)
    sq.freeze(model)
    net = sq.lower(model, x)
    assert [s.bits for s in net.synapses] == [8, 4]
    assert [n.spec.v.bits for n in net.neurons] == [9, 16]


REFUSED = {
    "plan and neurons": ("xylo", lambda: Two(lambda: LIF(leak=0.9), bias=True), (9, 4, 12),
                         sq.Plan.uniform(weight_bits=12, membrane_bits=8),
                         ("6 reasons", "a: the plan asks for 12 weight bits; this target has 8 [plan]",
                          "n2: runs leak > integrate > fire > reset and resets by 'zero'")),
    "a bias on Xylo": ("xylo", lambda: Two(cuba("subtract"), bias=True), (9, 4, 12), sq.Plan(),
                       ("n1: has a bias", "take bias=False in the layer in front [bias]", "2 reasons:")),
    "more inputs and outputs than Xylo has": ("xylo", lambda: Two(cuba("subtract"), inputs=17, outputs=9), (9, 4, 17),
                                              sq.Plan(), ("17 inputs; this target has 16", "9 outputs")),
    "delayed reset": ("loihi-cuba", lambda: Two(lambda: LIF(order="delayed_reset", reset="subtract")), (9, 4, 12),
                      sq.Plan(), ("leaks first and resets to zero at once",)),
    "pictures": ("loihi-cuba", lambda: Two(lambda: LIF(leak=0.9)), None, sq.Plan(), ("input: codes from",)),
    "a window": ("speck", lambda: Picture(side=20, kernel=17), (3, 2, 1, 20, 20), sq.Plan(),
                 ("a: a window of (17, 17); this target has at most 15 a side [kernel]",)),
    "scales": ("speck", Picture, (3, 2, 1, 8, 8),
               sq.Plan.from_dict({"rules": [{"match": "a", "weight": {"bits": 8, "per_channel": True}}]}),
               ("a: the plan asks for a scale per channel",)),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_layer_and_limit_and_change_nothing(case):
    target, build, shape, plan, wanted = REFUSED[case]
    torch.manual_seed(0)
    model = build()
    x = torch.rand(9, 4, 12) if shape is None else (torch.rand(shape) < 0.5).float()
    before, specs = model(x), [m.spec for m in model.modules() if isinstance(m, Neuron)]
    with pytest.raises(sq.Unsupported) as caught:
        sq.quantize_(model, plan, x, target=target, quiet=True)
    for text in (f"target {target}/1 cannot do this network", *wanted):
        assert text in str(caught.value)
    assert torch.equal(before, model(x))
    assert specs == [m.spec for m in model.modules() if isinstance(m, Neuron)]


def test_bits_for_any_order_of_delivery():
    """Many inputs: eight bits could saturate, so fewer are chosen; asking for eight is refused with the proof."""
    torch.manual_seed(0)
    x = (torch.rand(9, 4, 16) < 0.5).float()
    build = lambda: Two(cuba("subtract"), inputs=16, hidden=400)  # noqa: E731
    report = sq.quantize_(build(), sq.Plan(), x, target="xylo", quiet=True)
    bits = {row.module: row.bits for row in report.rows if row.role == "weight"}
    assert bits["a"] == 8
    assert bits["b"] < 8
    with pytest.raises(sq.Unsupported, match=r"n2: it saturates at every event"):
        sq.quantize_(build(), sq.Plan.uniform(weight_bits=8), x, target="xylo", quiet=True)


def test_a_threshold_that_the_grid_moves_is_said():
    torch.manual_seed(0)
    x = (torch.rand(9, 4, 12) < 0.5).float()
    report = sq.quantize_(Two(lambda: LIF(leak=0.9, threshold=1e-3)), sq.Plan(), x, target="loihi-cuba", quiet=True)
    assert any(note.startswith("n1: the target's grid moves the threshold by ") for note in report.notes)
    report = sq.quantize_(Two(lambda: LIF(leak=0.9, threshold=0.3)), sq.Plan(), x, target="loihi-cuba", quiet=True)
    assert not any("grid moves" in note for note in report.notes)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_recurrent_networks_in_their_own_loop(reset):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.i, self.r = nn.Linear(12, 16, bias=False), nn.Linear(16, 16, bias=False)
            self.n = CubaLIF(leak=0.9, leak_i=0.6, reset=reset, step_mode="s", threshold=0.5)
            self.o = nn.Linear(16, 4, bias=False)
            self.m = CubaLIF(leak=0.9, leak_i=0.6, reset=reset, step_mode="s", threshold=0.5)

        def forward(self, x):
            spikes, count = torch.zeros(x.shape[1], 16), 0
            for step in x:
                spikes = self.n(self.i(step) + self.r(spikes))
                count = count + self.m(self.o(spikes))
            return count

    torch.manual_seed(0)
    model, x = Recurrent(), (torch.rand(20, 5, 12) < 0.4).float()
    sq.quantize_(model, sq.Plan(), x, target="xylo" if reset == "subtract" else "loihi-cuba", quiet=True)
    sq.freeze(model)
    net = sq.lower(model, x)
    found = sq.verify(model, net, x)
    assert found.spikes > 100
    assert not found.differences


def test_prepared_models_of_a_target_load(tmp_path):
    model, x, target = made("xylo")
    sq.quantize_(model, sq.Plan(), x, target=target, quiet=True)
    sq.save_prepared(model, tmp_path / "m.safetensors")
    again = sq.load_prepared(CASES["xylo"][0], tmp_path / "m.safetensors")
    assert torch.equal(model.eval()(x), again.eval()(x))
    sq.freeze(again)
    assert sq.lower(again, x).target == "xylo/1"

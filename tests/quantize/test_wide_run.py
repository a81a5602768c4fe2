"""What `calibrate` compares with holds everything, and what it found survives in a `state_dict`."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.quantize.nets import INPUTS, awake_, spikes
from torch import nn

import spikequant as sq
from spikequant.nn import LIF, CubaLIF, LeakyIntegrator, Register
from spikequant.quantize.rate_trials import best_reach

X = spikes(40, 8, INPUTS, seed=5)


def plan(**rule):
    return sq.Plan.from_dict({"rules": [{"match": "*", "weight": {"bits": 8}, **rule}]})


def calibrated(net, x=X, **rule):
    dressed = copy.deepcopy(net)
    sq.quantize_(dressed, plan(**rule), x, quiet=True)
    return dressed, sq.calibrate(dressed, [x])


def layer_of(neuron, mean, spread):
    net = nn.Sequential(nn.Linear(INPUTS, 5, bias=False), neuron)
    torch.manual_seed(0)
    with torch.no_grad():
        net[0].weight.normal_(mean, spread)
    return net


def test_a_readout_far_beyond_a_wide_register():
    """256 real units hold a wide readout, as long as nothing larger comes."""
    net = layer_of(LeakyIntegrator(leak=1.0), 80.0, 6.0)
    dressed, report = calibrated(net, membrane={"bits": 16})
    with torch.no_grad():
        real, found = net(X), dressed(X)
    assert report.layers[0].limit > float(real.abs().max())
    assert float((real - found).abs().max()) < 0.01 * float(real.abs().max())


def test_an_inhibited_membrane_far_below_a_wide_register():
    """What the membrane owes before it may fire again is many times 32 thresholds."""
    net = layer_of(LIF(leak=1.0), 5.0, 0.5)
    x = X.clone()
    x[:12] = -x[:12]
    dressed, report = calibrated(net, x, membrane={"bits": 16})
    assert float(dressed[1].peaks["v"].max()) > 150
    with torch.no_grad():
        real, found = net(x), dressed(x)
    assert float(real.mean()) > 0.1
    assert float(found.mean()) == pytest.approx(float(real.mean()), abs=0.01)
    assert report.layers[0].wide_rate == pytest.approx(float(real.mean()), abs=0.01)


@pytest.mark.parametrize("rule", [{"current": {"bits": 4}}, {"membrane": {"bits": 8}}], ids=["asked", "beside"])
@pytest.mark.parametrize("neuron", [LIF, CubaLIF])
def test_a_state_dict_says_how_every_register_rounds(neuron, rule):
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 12), neuron(), nn.Linear(12, 5), neuron()))
    dressed, _ = calibrated(net, **rule)
    for layer in (dressed[1], dressed[3]):  # what the data choose may be what a new model starts with
        for name in ("current", "input"):
            if (register := getattr(layer.choice, name)) is not None:
                layer.choice = replace(layer.choice, **{name: replace(register, rounding="half_up")})
    other = copy.deepcopy(net)
    sq.quantize_(other, plan(**rule), X, quiet=True)
    other.load_state_dict(dressed.state_dict())
    assert [layer.choice for layer in other if hasattr(layer, "choice")] == [dressed[1].choice, dressed[3].choice]
    with torch.no_grad():
        assert torch.equal(other(X), dressed(X))


def test_an_older_state_tells_of_the_membrane_alone():
    dressed, _ = calibrated(awake_(nn.Sequential(nn.Linear(INPUTS, 5), CubaLIF())), membrane={"bits": 8})
    before = dressed[1].choice
    dressed[1].set_extra_state(dressed[1].get_extra_state()[:2])
    assert dressed[1].choice == before


def test_a_membrane_of_one_bit_has_a_current_that_holds_something():
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 12), CubaLIF()))
    dressed, report = calibrated(net, membrane={"bits": 1, "signed": False})
    assert dressed[1].choice.current.bits == 2
    assert report.layers[0].inflow.limit > 0


def test_a_narrow_current_is_not_blamed_on_the_membrane():
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 12), CubaLIF(leak=0.9, leak_i=0.8)))
    _, report = calibrated(net, current={"bits": 2, "limit": 1e-3})
    assert report.warnings
    assert "current.bits" in report.warnings[0]
    assert "no membrane" not in report.warnings[0]


def test_a_search_goes_on_where_reaches_do_the_same():
    """Four of them give one error; what is worse ends it, and so does an error of 0."""
    wide, seen = torch.zeros(3), []
    errors = {1.0: 0.4, 2.0: 0.4, 4.0: 0.4, 8.0: 0.1, 16.0: 0.2, 0.5: 0.4, 0.25: 0.0}

    def run(register, limit):
        seen.append(limit)
        return torch.full((3,), errors[limit])

    asked = Register(bits=8)
    up = best_reach(run, asked, ("floor",), (1.0, 2.0), wide, step=2.0, farthest=1000.0)
    assert (up[2], seen) == (8.0, [1.0, 2.0, 4.0, 8.0, 16.0])
    down = best_reach(run, asked, ("floor",), (1.0,), wide, step=0.5, farthest=1.0)
    assert (down[2], seen[5:]) == (0.25, [1.0, 0.5, 0.25])


@pytest.mark.parametrize("error", [0.3, float("nan"), float("inf")])
def test_a_search_downwards_ends(error):
    seen = []

    def run(register, limit):
        seen.append(limit)
        return torch.full((3,), error)

    assert best_reach(run, Register(bits=8), ("floor",), (1.0,), torch.zeros(3), step=0.5, farthest=1.0)[2] == 1.0
    assert len(seen) < 8

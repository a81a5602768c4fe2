"""`calibrate` finds what synaptic currents, and registers for the input of a membrane, have to hold."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.quantize.nets import BATCH, INPUTS, awake_, spikes
from torch import nn

import spikequant as sq
from spikequant.law.spec import Leak, NeuronSpec
from spikequant.nn import LIF, CubaLIF, LeakyIntegrator, Neuron

X = spikes(60, 24, INPUTS, seed=5)


def network(neuron=CubaLIF, gain=1.0, **options):
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 40), neuron(**options), nn.Linear(40, 12), neuron(**options)))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.mul_(gain)
    return net


def calibrated(net, **rule):
    net = copy.deepcopy(net)
    plan = sq.Plan.from_dict({"rules": [{"match": "*", "weight": {"bits": 8, "clipping": "mse"}, **rule}]})
    sq.quantize_(net, plan, X, quiet=True)
    return net, sq.calibrate(net, [X])


@pytest.mark.parametrize("gain", [0.1, 1.0, 5.0])
@pytest.mark.parametrize(
    "rule",
    [{"membrane": {"bits": 8}}, {"current": {"bits": 8}}, {"membrane": {"bits": 8}, "current": {"bits": 16}}],
    ids=["membrane", "current", "both"],
)
def test_currents_get_the_reach_that_they_need(gain, rule):
    net = network(leak=0.9, leak_i=0.8, gain=gain)
    dressed, report = calibrated(net, **rule)
    with torch.no_grad():
        real, found = net(X), dressed(X)
    assert float(real.mean()) > 0.005
    assert float(found.mean()) == pytest.approx(float(real.mean()), rel=0.05)
    assert float((real == found).float().mean()) > 0.9
    assert all(layer.inflow is not None and layer.inflow.state == "i" for layer in report.layers)
    assert not report.warnings


def test_what_is_frozen_is_what_was_found():
    dressed, _ = calibrated(network(leak=0.9, leak_i=0.8), membrane={"bits": 6}, current={"bits": 6})
    sq.freeze(dressed)
    assert sq.verify(dressed, sq.lower(dressed, X), X).differences == 0


def test_a_register_for_the_sum_of_a_step_holds_it():
    net = network(LIF, gain=8.0, leak=0.9)
    dressed, report = calibrated(net, current={"bits": 8})
    with torch.no_grad():
        real, found = net(X), dressed(X)
    assert float(found.mean()) == pytest.approx(float(real.mean()), rel=0.03)
    assert report.layers[0].inflow.state == "x"
    assert report.layers[0].inflow.limit > 2 * float(net[1].real_value("threshold"))
    assert "a wide membrane; input of the membrane" in str(report.layers[0])


def test_what_the_plan_says_stays():
    dressed, report = calibrated(
        network(), membrane={"bits": 8}, current={"bits": 8, "limit": 3.0, "rounding": "floor"}
    )
    for layer in report.layers:
        assert (layer.inflow.limit, layer.inflow.rounding) == (3.0, "floor")
    assert float(dressed[1].i_limit) == 3.0


@pytest.mark.parametrize("clipping", ["max", "percentile"])
def test_clipping_by_the_peaks(clipping):
    dressed, report = calibrated(network(), current={"bits": 8, "clipping": clipping})
    peaks = dressed[1].peaks["i"]
    most = peaks.max() if clipping == "max" else torch.quantile(peaks, 0.999)
    assert report.layers[0].inflow.limit == pytest.approx(float(most) * (1.05 if clipping == "max" else 1.0))


def test_a_readout_with_a_current_has_room():
    decay = Leak(form="multiply")
    spec = NeuronSpec(
        order=("decay_current", "add_current", "leak", "integrate"), leak=decay, leak_i=decay, output="state"
    )
    readout = Neuron(spec, {"leak": 0.9, "leak_i": 0.8})
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 40), CubaLIF(), nn.Linear(40, 5, bias=False), readout))
    dressed, report = calibrated(net, membrane={"bits": 12})
    assert not report.layers[1].spikes
    assert "; current " in str(report.layers[1])
    with torch.no_grad():
        real, found = net(X), dressed(X)
    assert float((real - found).abs().max()) < 0.1 * float(real.abs().max())


@pytest.mark.parametrize("bits", [4, 6])
def test_a_readout_does_not_drift(bits):
    """Half to even, no code below 10 decays by a leak of 0.95: the sum over time runs away."""
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 5, bias=False), LeakyIntegrator(leak=0.95)), drive=0.0)
    x, errors = spikes(100, 24, INPUTS, seed=7), {}
    x[10:] = 0
    for rounding in ("auto", "half_even"):
        dressed = copy.deepcopy(net)
        sq.quantize_(dressed, sq.Plan.uniform(membrane_bits=bits, membrane_rounding=rounding), x, quiet=True)
        (layer,) = sq.calibrate(dressed, [x]).layers
        with torch.no_grad():
            errors[rounding] = float((net(x).sum(0) - dressed(x).sum(0)).abs().mean())
    assert errors["auto"] < errors["half_even"] / 3
    assert layer.error > 0


def test_a_second_call_changes_nothing():
    dressed, first = calibrated(network(), membrane={"bits": 5}, current={"bits": 5})
    assert list(map(str, sq.calibrate(dressed, [X]).layers)) == list(map(str, first.layers))


def test_a_silent_layer_keeps_a_register():
    net = network(gain=0.0)
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.bias.zero_()
    _, report = calibrated(net, membrane={"bits": 8})
    assert report.layers[0].inflow.limit > 0
    assert len(report.warnings) == 2


def test_batch_of_another_size():
    dressed, _ = calibrated(network(), current={"bits": 8})
    assert dressed(X[:, :BATCH]).shape == (60, BATCH, 12)

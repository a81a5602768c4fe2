"""`calibrate`: ranges and roundings out of data; the rates of every layer survive (DESIGN rule 3)."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.quantize.nets import BATCH, CLASSES, HIDDEN, INPUTS, STEPS, W4U8, awake_, chain, frozen, spikes
from torch import nn

import spikequant as sq
from spikequant.analyse import observe
from spikequant.nn import IF, LIF, LeakyIntegrator

X = spikes(STEPS, BATCH, INPUTS)


def quantized(net=None, **plan):
    net = net if net is not None else chain()
    sq.quantize_(net, sq.Plan.uniform(**plan) if plan else W4U8, X, quiet=True)
    return net


def test_without_batches_or_with_bad_ones():
    net = quantized()
    with pytest.raises(sq.DataError, match="calibrate: the loader gave no batch; expected at least one"):
        sq.calibrate(net, [])
    with pytest.raises(sq.DataError, match=r"calibrate: batch 1 is empty, its shape is \(12, 0, 8\)"):
        sq.calibrate(net, [X, X[:, :0]])
    bad = X.clone()
    bad[2, 1, 0] = float("nan")
    with pytest.raises(sq.DataError, match="calibrate: the data hold NaN or infinite values; remove them first"):
        sq.calibrate(net, [(X, torch.zeros(BATCH)), (bad, torch.zeros(BATCH))])


def test_before_quantize_and_after_freeze():
    with pytest.raises(
        sq.NotFrozen,
        match=r"there is nothing to calibrate; call spikequant.quantize_\(model, plan, example_input\) first",
    ):
        sq.calibrate(chain(), [X])
    net = quantized()
    sq.freeze(net)
    with pytest.raises(sq.NotFrozen, match=r"the model is frozen; calibrate before spikequant.freeze\(model\)"):
        sq.calibrate(net, [X])


@pytest.mark.parametrize("seed", range(3))
def test_four_unsigned_bits_keep_the_rates_of_every_layer(seed):
    net = awake_(
        nn.Sequential(nn.Linear(INPUTS, 40), LIF(leak=0.75), nn.Linear(40, 30), IF(), nn.Linear(30, 20), LIF(leak=0.5)),
        seed=seed,
        drive=0.04,
    )
    batches = [(spikes(32, 24, INPUTS, seed=s), torch.zeros(24, dtype=torch.long)) for s in range(3)]
    real = copy.deepcopy(net)
    quantized(net, weight_bits=8, membrane_bits=4, membrane_signed=False)
    report = sq.calibrate(net, batches[:1])
    assert len(report.layers) == 3
    sq.freeze(net)
    for layer in ("1", "3", "5"):
        before, after = (
            float(observe(Sums(m), batches[1:], operations=False).firing[f"net.{layer}"].rates().mean())
            for m in (real, net)
        )
        assert 0.05 < before < 0.95
        assert abs(after - before) < 0.1 * before, layer


class Sums(nn.Module):
    """The classes by their spikes."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).sum(0)


def test_a_bad_rounding_is_not_chosen():
    """Toward zero silences a slow layer at four bits; calibrate must see that."""
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 20), LIF(leak=0.9375)), drive=0.02)
    with torch.no_grad():
        net[0].weight.mul_(0.25)
    real = copy.deepcopy(net)
    x = spikes(64, 32, INPUTS)
    quantized(net, weight_bits=8, membrane_bits=4, membrane_signed=False)
    with torch.no_grad():
        before = float(real(x).mean())
    (layer,) = sq.calibrate(net, [x]).layers
    truncated = copy.deepcopy(net)
    choice = net[1].choice
    truncated[1].choice = replace(choice, membrane=replace(choice.membrane, rounding="toward_zero"))
    assert layer.rounding != "toward_zero"
    with torch.no_grad():
        after, silenced = float(net(x).mean()), float(truncated(x).mean())
    assert before > 0.02
    assert abs(after - before) < 0.1 * before < 0.3 * before < abs(silenced - before)
    assert layer.rate == pytest.approx(after, rel=0.2)


@pytest.mark.parametrize("bits", [6, 8, 12])
def test_a_membrane_that_swings_far_gets_its_reach(bits):
    """What a neuron is owed below its threshold is kept, so its later spikes are those of a wide membrane."""
    net = awake_(nn.Sequential(nn.Linear(INPUTS, 40), LIF(leak=0.95)), drive=0.0)
    with torch.no_grad():
        net[0].weight.mul_(3.0)
    x = spikes(60, 20, INPUTS, seed=3).roll(1, 2)
    x[20:40, :, ::2] = 0  # long stretches of one sign
    errors = {}
    for limit in (None, 2.0):
        dressed = copy.deepcopy(net)
        role = {"bits": bits, "signed": True, "rounding": "half_even"} | ({} if limit is None else {"limit": limit})
        sq.quantize_(dressed, sq.Plan.from_dict({"rules": [{"match": "*", "membrane": role}]}), x, quiet=True)
        (layer,) = sq.calibrate(dressed, [x]).layers
        errors[limit] = layer.error
        assert (layer.limit > 2.0) == (limit is None)
    assert errors[None] < errors[2.0] / 3


def test_calibrating_twice_is_calibrating_once():
    net = quantized(chain(reset="none", leak=0.875), weight_bits=4, membrane_bits=6)
    first = sq.calibrate(net, [X])
    assert first.layers[0].limit == 8.0  # what is never reset goes far beyond its threshold of 1
    once = net(X)
    second = sq.calibrate(net, [X])
    assert [str(layer) for layer in second.layers] == [str(layer) for layer in first.layers]
    assert torch.equal(net(X), once)


def test_the_input_range_comes_from_the_data():
    net = chain()
    x = torch.randn(STEPS, BATCH, INPUTS)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4, membrane_bits=8, input_bits=6), x, quiet=True)
    sq.calibrate(net, [3 * x, 100 * x], max_batches=1)
    assert float(net.fc1.input_scale) == pytest.approx(float((3 * x).abs().max()) / 31)
    sq.calibrate(net, [3 * x, 100 * x])
    assert float(net.fc1.input_scale) == pytest.approx(float((100 * x).abs().max()) / 31)


def test_limits_of_the_plan_are_kept():
    net = chain()
    plan = {
        "rules": [
            {"match": "fc*", "weight": {"bits": 4}},
            {"match": "lif*", "membrane": {"bits": 5, "limit": 3.5, "rounding": "floor"}},
        ]
    }
    sq.quantize_(net, sq.Plan.from_dict(plan), X, quiet=True)
    report = sq.calibrate(net, [X])
    assert [(layer.limit, layer.rounding) for layer in report.layers] == [(3.5, "floor")] * 2
    assert float(net.lif1.v_limit) == 3.5


@pytest.mark.parametrize("clipping", ["max", "percentile"])
def test_clipping_by_the_data(clipping):
    net = chain(reset="none", leak=0.875)
    plan = {
        "rules": [
            {"match": "lif1", "membrane": {"bits": 8, "clipping": clipping}},
            {"match": "*", "weight": {"bits": 4}},
        ]
    }
    sq.quantize_(net, sq.Plan.from_dict(plan), X, quiet=True)
    (layer,) = sq.calibrate(net, [X]).layers
    assert layer.limit > 1.5
    largest = float(net.lif1.peaks["v"].max())
    assert layer.limit == pytest.approx(largest) if clipping == "max" else layer.limit <= largest


@torch.no_grad()
def test_an_integrating_readout_gets_room():
    net = awake_(
        nn.Sequential(nn.Linear(INPUTS, HIDDEN), LIF(), nn.Linear(HIDDEN, CLASSES), LeakyIntegrator(leak=0.96875))
    )
    real = copy.deepcopy(net)
    quantized(net, weight_bits=8, membrane_bits=12)
    sq.calibrate(net, [X])
    wanted = real(X)
    assert float(wanted.abs().max()) > 2.0
    assert float((net(X) - wanted).abs().max()) < 0.25
    report = sq.calibrate(net, [X])
    assert report.warnings == ()
    assert str(report).splitlines()[1].endswith("a readout that does not spike")


def test_silent_and_changed_layers_are_warned_of():
    net = chain(threshold=50.0)
    quantized(net)
    report = sq.calibrate(net, [X])
    assert report.warnings[0] == (
        "lif1 is silent on the calibration data; so it is with a wide membrane: the cause lies in its weights, "
        "its threshold or what it is given, and spikequant.analyse.diagnose finds it"
    )
    assert "lif1: " in str(report)
    assert "lif1 is silent" in str(report)


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_states_are_left_alone(training):
    net = quantized().train(training)
    before = net(X)
    sq.calibrate(net, [(X, None)])
    assert net.training == training
    assert net.lif1.step_mode == "m"
    assert net.lif1.watch is None
    assert before.shape == net(X).shape


def test_calibrated_networks_lower_and_verify():
    net = chain()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=3, membrane_bits=4), X, quiet=True)
    sq.calibrate(net, [X])
    sq.freeze(net)
    report = sq.verify(net, sq.lower(net, X), X)
    assert report.differences == 0
    assert report.spikes > 20
    with pytest.raises(sq.Unsupported, match="quantized already"):
        frozen(net, W4U8, X)


def test_the_bits_that_a_warning_names_were_tried():
    """A membrane of 2 bits that truncates; the warning's width brings the rate back, one bit less does not."""

    def calibrated(bits):
        net = awake_(nn.Sequential(nn.Linear(INPUTS, 20), LIF(leak=0.9375)), drive=0.02)
        sq.quantize_(
            net, sq.Plan.uniform(weight_bits=8, membrane_bits=bits, membrane_rounding="toward_zero"), X, quiet=True
        )
        return sq.calibrate(net, [X])

    narrow = calibrated(2).layers[0]
    assert abs(narrow.rate - narrow.wide_rate) > 0.1 * narrow.wide_rate
    assert narrow.enough_bits is not None
    assert f"membrane.bits = {narrow.enough_bits} brings it to" in calibrated(2).warnings[0]
    assert calibrated(narrow.enough_bits).warnings == ()
    assert calibrated(narrow.enough_bits - 1).warnings != ()


@pytest.mark.parametrize("quantizer", ["lsq", "power_of_two", "uniform"])
def test_weight_scales_move_to_the_least_output_error(quantizer):
    torch.manual_seed(0)
    net = chain()
    rule = {"match": "*", "weight": {"quantizer": quantizer, "bits": 3}, "membrane": {"bits": 8}}
    if quantizer != "lsq":
        rule["weight"]["clipping"] = "mse"
    sq.quantize_(net, sq.Plan.from_dict({"rules": [rule]}), X, quiet=True)
    x = (torch.rand(512, INPUTS) < 0.2).float()

    @torch.no_grad()
    def error(layer):
        return float(((layer.weight - layer.codes() * layer.scale()) @ x.T).square().sum())

    before = error(net.fc1)
    sq.calibrate(net, [x.expand(STEPS, *x.shape)])
    assert error(net.fc1) < before
    once = net.fc1.weight_scale.clone()
    sq.calibrate(net, [x.expand(STEPS, *x.shape)])
    assert quantizer != "lsq" or torch.equal(net.fc1.weight_scale, once)


def test_a_learned_scale_that_was_trained_stays():
    net = chain()
    rule = {"match": "*", "weight": {"quantizer": "lsq", "bits": 3}, "membrane": {"bits": 8}}
    sq.quantize_(net, sq.Plan.from_dict({"rules": [rule]}), X, quiet=True)
    with torch.no_grad():
        net.fc1.weight_scale.mul_(1.03)  # a step of an optimiser
    trained, other = net.fc1.weight_scale.clone(), net.fc2.weight_scale.clone()
    sq.calibrate(net, [X])
    assert torch.equal(net.fc1.weight_scale, trained)
    assert not torch.equal(net.fc2.weight_scale, other)

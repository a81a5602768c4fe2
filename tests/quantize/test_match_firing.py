"""`match_firing`: rates come nearer on samples that it never saw, integers stay equal, nothing else moves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.quantize.nets import HIDDEN, INPUTS, STEPS, chain, spikes
from torch import nn

import spikequant as sq
from spikequant.analyse import observe
from spikequant.measure import matched_l1
from spikequant.nn import IF, LIF
from spikequant.quantize import firing_search
from spikequant.quantize.firing_rates import layer_rates
from spikequant.quantize.firing_search import channel_error

X = [spikes(STEPS, 48, INPUTS, seed=seed) for seed in range(2)]
FRESH = [spikes(STEPS, 240, INPUTS, seed=10)]


def pair(seed=0, bits=2, **options):
    """A float network and its calibrated copy."""
    torch.manual_seed(seed)
    real = chain(**options)
    model = copy.deepcopy(real)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=bits, membrane_bits=8), X[0], quiet=True)
    sq.calibrate(model, X)
    return real, model


def distance(real, model, layer="lif1"):
    r, s = (layer_rates(net.eval(), FRESH, [layer])[layer] for net in (real, model))
    return matched_l1(np.concatenate([r.searched, r.held]), np.concatenate([s.searched, s.held]))


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_rates_come_nearer_on_fresh_data(reset):
    before, after = [], []
    for seed in range(3):
        real, model = pair(seed, reset=reset)
        before.append(distance(real, model))
        report = sq.match_firing(model, real, X)
        after.append(distance(real, model))
        assert all(layer.matched <= layer.matched_before for layer in report.layers)
        assert report.layers[0].moved > 0
    assert np.mean(after) < 0.7 * np.mean(before)


def test_thresholds_and_biases_are_integers_per_channel_and_the_soft_reset_stays():
    real, model = pair(reset="subtract")
    reset = model.lif1.integers().params["reset"].clone()
    weight = model.fc1.weight.detach().clone()
    sq.match_firing(model, real, X)
    assert torch.equal(model.fc1.weight, weight)
    assert model.lif1.threshold_shift.shape == model.lif1.bias_shift.shape == (HIDDEN,)
    params = model.lif1.integers().params
    assert torch.equal(params["reset"], reset)
    assert not torch.equal(params["theta"], reset.expand(HIDDEN))
    assert torch.equal(params["theta"], params["theta"].round())
    before = model(X[0])
    assert before.sum() > 0
    sq.freeze(model)
    assert torch.equal(model(X[0]), before)
    assert sq.verify(model, sq.lower(model, X[0]), X[0]).differences == 0


@pytest.mark.parametrize("frozen", [False, True])
def test_shifts_survive_a_file_and_a_copy(tmp_path, frozen):
    real, model = pair()
    sq.match_firing(model, real, X)
    if frozen:
        sq.freeze(model)
    sq.save_prepared(model, tmp_path / "net.safetensors")
    again = sq.load_prepared(chain, tmp_path / "net.safetensors")
    others = [again, copy.deepcopy(model)]
    if not frozen:
        _, other = pair()
        other.load_state_dict(model.state_dict())
        others.append(other)
    for other in others:
        assert torch.equal(other.lif1.threshold_shift, model.lif1.threshold_shift)
        assert torch.equal(other(X[0]), model(X[0]))


def test_a_state_without_shifts_takes_them_away():
    real, model = pair()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    want = model(X[0])
    sq.match_firing(model, real, X)
    assert "lif1.bias_shift" in model.state_dict()
    model.load_state_dict(before)
    assert model.lif1.bias_shift is None
    assert torch.equal(model(X[0]), want)


def test_a_network_that_fires_alike_is_left_alone():
    real = chain()
    model = copy.deepcopy(real)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=16, membrane_bits=24), X[0], quiet=True)
    sq.calibrate(model, X)
    report = sq.match_firing(model, real, X)
    assert max(layer.emd for layer in report.layers) < 2e-3
    assert abs(distance(real, model)) < 2e-3


def test_single_steps_and_no_bias_at_all():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(INPUTS, HIDDEN, bias=False), IF(step_mode="s")

        def forward(self, x):
            return torch.stack([self.lif(self.fc(step)) for step in x]).mean(0)

    torch.manual_seed(3)
    real = Loop()
    with torch.no_grad():
        real.fc.weight.add_(0.2)
    model = copy.deepcopy(real)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=2, membrane_bits=8), X[0], quiet=True)
    sq.calibrate(model, X)
    [layer] = sq.match_firing(model, real, X).layers
    assert layer.matched < layer.matched_before
    assert layer.path == "lif"
    sq.freeze(model)
    assert observe(model, [(X[0], torch.zeros(48, dtype=torch.int64))], operations=False).firing["lif"].rates().any()
    assert sq.verify(model, sq.lower(model, X[0]), X[0]).differences == 0


def test_the_error_of_a_channel():
    rates, wanted = torch.tensor([[0.5, 0.25], [0.0, 0.0]]), torch.tensor([[0.25, 0.0], [0.5, 0.0]])
    assert channel_error(rates, wanted).tolist() == [0.5, 0.5]
    assert channel_error(rates.T, wanted.T, last=True).tolist() == [0.5, 0.5]


def test_it_is_never_worse_than_at_the_start_by_its_own_measure():
    for seed in range(4):
        real, model = pair(seed, bits=4)
        sq.match_firing(model, real, X)
        again = sq.match_firing(model, real, X)
        for layer in again.layers:
            assert layer.matched <= layer.matched_before
            assert layer.emd <= layer.emd_before


def test_an_interrupted_search_leaves_the_model_as_it_was(monkeypatch):
    real, model = pair()
    sq.match_firing(model, real, X[:1], max_batches=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain, calls = firing_search._rated, []

    def stopping(*given):
        calls.append(given)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(firing_search, "_rated", stopping)
    with pytest.raises(KeyboardInterrupt):
        sq.match_firing(model, real, X)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("most", [0, -1])
def test_a_number_of_batches_below_1_is_refused(most):
    real, model = pair()
    for call in (
        lambda: sq.match_firing(model, real, X, max_batches=most),
        lambda: sq.calibrate(model, X, max_batches=most),
    ):
        with pytest.raises(sq.DataError, match=f"max_batches={most}; expected 1 or more, or None"):
            call()


def test_what_cannot_be_matched_is_refused():
    real, model = pair()
    with pytest.raises(sq.NotFrozen, match="there is no quantized spiking layer"):
        sq.match_firing(real, real, X)
    with pytest.raises(sq.DataError, match="match_firing: the loader gave no batch"):
        sq.match_firing(model, real, [])
    with pytest.raises(sq.DataError, match="two samples or more"):
        sq.match_firing(model, real, [X[0][:, :1]])
    with pytest.raises(sq.DataError, match=r"the float model has no spiking layer 'lif1'; .*\(its layers: 1\)"):
        sq.match_firing(model, nn.Sequential(nn.Linear(INPUTS, HIDDEN), LIF()), X)
    sq.freeze(model)
    with pytest.raises(sq.NotFrozen, match=r"the model is frozen; match its firing before spikequant.freeze\(model\)"):
        sq.match_firing(model, real, X)

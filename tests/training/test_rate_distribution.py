"""`RateDistribution`: the EMD that is reported, as a loss; with it a trained network stays nearer to the float one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from tests.quantize.nets import CLASSES, INPUTS, STEPS, chain, spikes
from torch import nn

import spikequant as sq
from spikequant.nn import LIF
from spikequant.quantize.firing_rates import layer_rates
from spikequant.training import RateDistribution, Teacher
from spikequant.training.rate_distribution import sorted_distance

X = [spikes(STEPS, 32, INPUTS, seed=seed) for seed in range(4)]
BATCHES = [(x, torch.arange(32) % CLASSES) for x in X]


class Counts(nn.Module):
    """Class scores: how often each neuron of the last layer fired."""

    def __init__(self):
        super().__init__()
        self.net = chain()

    def forward(self, x):
        return self.net(x).mean(0)


def test_it_is_the_distance_that_scipy_gives_and_blind_to_order():
    generator = torch.Generator().manual_seed(0)
    r, s = torch.rand(2, 50, generator=generator, dtype=torch.float64)
    assert float(sorted_distance(r, s)) == pytest.approx(wasserstein_distance(r.numpy(), s.numpy()))
    assert float(sorted_distance(r.flip(0), r)) == 0.0


def test_its_gradient_is_that_of_finite_differences():
    r = torch.tensor([0.5, 0.1, 0.9, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda rates: sorted_distance(rates, torch.tensor([0.2, 0.25, 0.6, 0.7]).double()), r
    )


def emd_of(real, model):
    r, s = (layer_rates(net.eval(), X, ["net.lif1"])["net.lif1"] for net in (real, model))
    return wasserstein_distance((r.searched + r.held).numpy(), (s.searched + s.held).numpy()) / 2


def trained(real, *terms):
    model = copy.deepcopy(real)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=2, membrane_bits=8), X[0], quiet=True)
    sq.calibrate(model, X)
    torch.manual_seed(0)
    result = sq.fit(model, BATCHES, epochs=25, lr=3e-3, terms=terms, quiet=True)
    return model, result


def test_with_it_the_rates_stay_where_they_were():
    real = Counts()
    free, _ = trained(real)
    kept, result = trained(real, RateDistribution(real, weight=30.0, layers="net.lif1"))
    assert emd_of(real, kept) < 0.5 * emd_of(real, free)
    terms = [epoch.terms["RateDistribution"] for epoch in result.epochs]
    assert terms[-1] < terms[0]
    weight = real.net.fc1.weight
    assert weight.grad is None
    assert np.isfinite(terms).all()


def test_one_teacher_serves_several_terms_and_weight_zero_changes_nothing():
    real = Counts()
    teacher = Teacher(real)
    plain, _ = trained(real)
    nothing, _ = trained(
        real, RateDistribution(teacher, weight=0.0), RateDistribution(teacher, weight=0.0, layers="*1")
    )
    assert torch.equal(plain.net.fc1.weight, nothing.net.fc1.weight)


def test_layers_that_do_not_belong_together_are_refused():
    real = Counts()
    model = copy.deepcopy(real)
    with pytest.raises(sq.DataError, match="RateDistribution: no spiking layer 'conv"):
        sq.fit(model, BATCHES, epochs=1, terms=[RateDistribution(real, layers="conv*")], quiet=True)
    other = Counts()
    other.net.fc1, other.net.fc2 = nn.Linear(INPUTS, 4), nn.Linear(4, CLASSES)
    with pytest.raises(sq.DataError, match=r"net.lif1 has 10 neurons, in the teacher 4"):
        sq.fit(model, BATCHES, epochs=1, terms=[RateDistribution(other)], quiet=True)
    with pytest.raises(sq.DataError, match="RateDistribution: weight = -1"):
        RateDistribution(nn.Sequential(nn.Linear(2, 2), LIF()), weight=-1)

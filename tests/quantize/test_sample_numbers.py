"""Networks with stochastic rounding: figures do not depend on how the samples are cut into batches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import LIF, PoissonEncoder
from spikequant.readers import golden


class Net(nn.Module):
    """Two layers that round stochastically."""

    def __init__(self):
        super().__init__()
        self.a, self.n1 = nn.Linear(10, 24), LIF(leak=0.8, threshold=0.3)
        self.b, self.n2 = nn.Linear(24, 4), LIF(leak=0.8, threshold=0.3)

    def forward(self, x):
        return self.n2(self.b(self.n1(self.a(x)))).sum(0)


class Encoded(Net):
    """The same behind a Poisson encoder."""

    def __init__(self):
        super().__init__()
        self.encode = PoissonEncoder(9, seed=3)

    def forward(self, x):
        return super().forward(self.encode(x))


class Own(Net):
    """The same in a loop of its own."""

    def __init__(self):
        super().__init__()
        self.n1.step_mode = self.n2.step_mode = "s"

    def forward(self, x):
        count = 0
        for step in x:
            count = count + self.n2(self.b(self.n1(self.a(step))))
        return count


@pytest.fixture(params=[Net, Own, Encoded])
def case(request):
    """``(real, frozen, data, targets, axis of the samples)``."""
    torch.manual_seed(0)
    real = request.param()
    encoded = isinstance(real, Encoded)
    data = torch.rand(60, 10) if encoded else (torch.rand(9, 60, 10) < 0.5).float()
    targets = torch.randint(0, 4, (60,))
    model = copy.deepcopy(real)
    plan = sq.Plan.uniform(weight_bits=4, membrane_bits=4, membrane_rounding="stochastic")
    sq.quantize_(model, plan, data, quiet=True)
    sq.freeze(model)
    return real, model, data, targets, 0 if encoded else 1


def batches(data, targets, axis, size):
    return list(zip(data.split(size, axis), targets.split(size), strict=True))


def test_evaluate_and_compare(case):
    real, model, data, targets, axis = case
    whole = sq.evaluate(model, batches(data, targets, axis, 60)).predictions
    first = sq.compare(real, model, batches(data, targets, axis, 60))
    for size in (7, 20, 59):
        cut = batches(data, targets, axis, size)
        assert torch.equal(sq.evaluate(model, cut).predictions, whole)
        again = sq.compare(real, model, cut)
        assert again.to_dict() == first.to_dict()
        for one, other in zip(first.layers, again.layers, strict=True):
            assert np.array_equal(one.rates, other.rates)
    with torch.no_grad():
        parts = []
        for x in (*data.split(20, axis), data):
            sq.reset(model)
            parts.append(model(x))
        assert not torch.equal(torch.cat(parts[:-1]), parts[-1])  # the noise matters: counting anew gives other results
        sq.reset(model)
    assert first.quantized.accuracy == pytest.approx(float((whole == targets).float().mean()))


def test_verify_goes_on_counting(case):
    _, model, data, targets, axis = case
    net = sq.lower(model, data)
    start = 0
    spikes = 0
    for x, y in batches(data, targets, axis, 25):
        report = sq.verify(model, net, x, first_sample=start)
        assert report.differences == 0
        spikes += report.spikes
        start += len(y)
    assert spikes == sq.verify(model, net, data).spikes
    assert spikes > 0


def test_every_reader_counts_from_the_same_number(case):
    _, model, data, targets, axis = case
    net = sq.lower(model, data)
    if axis == 0:
        return  # the network begins behind the encoder
    codes = golden.encode(net, data.numpy())
    whole = golden.run(net, codes).scores
    found = [sq.evaluate(net, batches(data, targets, axis, size)).predictions for size in (60, 25, 7)]
    assert all(torch.equal(found[0], other) for other in found[1:])
    parts = [golden.run(net, codes[:, k : k + 25], first_sample=k).scores for k in range(0, 60, 25)]
    assert np.array_equal(np.concatenate(parts), whole)
    native = sq.compile(net)
    parts = [native.run(codes[:, k : k + 25], encoded=True, first_sample=k) for k in range(0, 60, 25)]
    assert np.array_equal(np.concatenate(parts), whole)

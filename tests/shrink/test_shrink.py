"""`shrink`: the smallest network that keeps a limit, found on copies, told in words."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.data import ArrayBatches
from spikequant.nn import LIF
from spikequant.shrinking import Shrunk, Trial

SAMPLES, INPUTS, STEPS = 192, 8, 4


class Net(nn.Module):
    """A static input, shown for four steps."""

    def __init__(self, hidden=12):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(INPUTS, hidden), LIF(leak=0.75)
        self.fc2 = nn.Linear(hidden, 2)

    def forward(self, x):
        current = self.fc1(x)
        return self.fc2(self.lif1(current.unsqueeze(0).expand(STEPS, *current.shape))).mean(0)


def batches(seed=0, samples=SAMPLES, **options):
    """Two classes that a line divides."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, INPUTS)).astype(np.float32)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)
    return ArrayBatches(x, y, batch_size=32, **options)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net = Net()
    sq.fit(net, batches(shuffle=True), epochs=12, lr=0.02, quiet=True)
    return net


@pytest.fixture(scope="module")
def shrunk(trained):
    return sq.shrink(trained, batches(), max_drop=5.0, validation=batches(1), epochs=1, max_trainings=1, quiet=True)


def test_it_finds_a_small_network_that_holds(trained, shrunk):
    assert isinstance(shrunk, Shrunk)
    assert shrunk.met
    assert shrunk.best in shrunk.trials
    assert all(isinstance(t, Trial) for t in shrunk.trials)
    real = sq.evaluate(trained, batches(1)).accuracy
    small = sq.evaluate(shrunk.model, batches(1)).accuracy
    assert small == pytest.approx(shrunk.best.accuracy)
    assert shrunk.best.drop == pytest.approx(100 * (real - small))
    assert shrunk.best.drop <= 5.0
    assert shrunk.best.size_bytes == min(t.size_bytes for t in shrunk.trials if t.met)
    assert shrunk.verified.differences == 0
    assert shrunk.verified.spikes > 0
    assert shrunk.best.flash_bytes == shrunk.comparison.quantized.flash_bytes
    assert math.isclose(shrunk.comparison.difference, -shrunk.best.drop)
    assert shrunk.best.name in str(shrunk)


def test_the_model_of_the_user_is_untouched(trained):
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    modules = list(map(type, trained.modules()))
    random = torch.get_rng_state()
    kept = copy.deepcopy(trained)
    sq.shrink(trained, batches(), max_drop=5.0, validation=batches(1), epochs=1, max_trainings=1, quiet=True)
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())
    assert list(map(type, trained.modules())) == modules
    assert trained.training == kept.training
    assert torch.equal(torch.get_rng_state(), random)

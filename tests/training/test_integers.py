"""`evaluate` on integer networks: the predictions of the golden model, by whichever reader."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.law.errors import DataError
from spikequant.nn import integer_readers
from spikequant.readers import golden, native
from spikequant.training import integers


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 20), sq.nn.LIF(leak=0.75), nn.Linear(20, 4), sq.nn.LIF(leak=0.5))

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x).sum(0)

    with torch.no_grad():
        net[0].weight.mul_(3)
        net[2].weight.mul_(3)
    model, x = Counts(), (torch.rand(6, 40, 12) < 0.4).float()
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    sq.freeze(model)
    return model, sq.lower(model, x), [(x[:, :33], torch.arange(33) % 4), (x[:, 33:], torch.arange(7) % 4)]


def test_the_integers_score_as_the_model(frozen):
    model, net, batches = frozen
    by_model, by_net = sq.evaluate(model, batches), sq.evaluate(net, batches)
    assert torch.equal(by_model.predictions, by_net.predictions)
    assert by_net.samples == 40
    assert by_net.accuracy == by_model.accuracy
    scores = torch.cat([torch.from_numpy(golden.run(net, golden.encode(net, x.numpy())).scores) for x, _ in batches])
    assert torch.equal(by_net.predictions, scores.argmax(-1))
    assert len(by_net.predictions.unique()) > 1


@pytest.fixture
def without_layers(monkeypatch):
    """No network has stages."""
    monkeypatch.setattr(integer_readers, "layerwise", lambda net: (None, "asked for"))


@pytest.mark.parametrize("why", ["no compiler", "too large"])
def test_the_golden_model_stands_in(frozen, why, monkeypatch, without_layers):
    _, net, batches = frozen
    wanted = sq.evaluate(net, batches)
    if why == "no compiler":
        monkeypatch.setattr(native, "find_compiler", lambda: None)
    else:
        monkeypatch.setattr(integer_readers, "COMPILED_UP_TO", 10)
    assert integers.IntegerRunner(net).reader == "golden"
    assert torch.equal(sq.evaluate(net, batches).predictions, wanted.predictions)


@pytest.mark.skipif(native.find_compiler() is None, reason="no C compiler")
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_a_batch(frozen, threads, without_layers):
    _, net, batches = frozen
    runner = integers.IntegerRunner(net, threads=threads)
    assert runner.reader == "c99"
    for x, _ in batches:
        wanted = golden.run(net, golden.encode(net, x.numpy())).scores
        assert torch.equal(runner(x), torch.from_numpy(wanted))
        assert torch.equal(runner(x[:, :1]), torch.from_numpy(wanted[:1]))


def test_what_cannot_be_scored_is_refused(frozen):
    _, net, _ = frozen
    with pytest.raises(DataError, match="the loader gave no batch"):
        sq.evaluate(net, [])
    with pytest.raises(DataError):
        sq.evaluate(net, [(torch.rand(6, 3, 11), torch.zeros(3))])

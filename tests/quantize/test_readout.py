"""A readout whose channels have scales of their own: integer gains bring them together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.analyse import memory_rows
from spikequant.capture import capture
from spikequant.measure import network_memory
from spikequant.nn import LIF, LeakyIntegrator, Neuron
from spikequant.quantize.readout import membrane_worth
from spikequant.readers import golden
from spikequant.readers.native import find_compiler

X = (torch.rand(12, 4, 9, generator=torch.Generator().manual_seed(0)) < 0.5).float()


class Net(nn.Module):
    def __init__(self, gain, reading="sum"):
        super().__init__()
        torch.manual_seed(2)
        self.reading = reading
        self.fc1, self.lif = nn.Linear(9, 16), LIF(leak=0.75, threshold=0.3)
        self.fc2 = nn.Linear(16, 3)
        self.out = Neuron(LeakyIntegrator().spec, {"leak": torch.tensor([0.5, 0.75, 0.9]), "gain": gain})

    def forward(self, x):
        train = self.out(self.fc2(self.lif(self.fc1(x))))
        return {"sum": lambda: train.sum(0), "last": lambda: train[-1], "train": lambda: train}[self.reading]()


@pytest.mark.parametrize("reading", ["sum", "last", "train"])
def test_scores_are_the_models_outputs(reading):
    model = Net(torch.tensor([0.5, 0.25, 0.1]), reading)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=8, membrane_bits=16), X, quiet=True)
    sq.freeze(model)
    net = sq.lower(model, X)
    proof = sq.verify(model, net, X)
    assert proof.differences == 0
    codes = golden.encode(net, X.numpy())
    scores = golden.run(net, codes).scores
    assert np.allclose(scores * net.decoder.scale, model(X).detach().numpy(), rtol=1e-4, atol=1e-6)
    assert len(np.unique(net.decoder.gains)) > 1
    if find_compiler() is not None:
        assert np.array_equal(sq.compile(net).run(codes, encoded=True), scores)
    rows = memory_rows(model, {}, graph=capture(model, X), input_bits=1, steps=len(X))
    assert sum(r.count * r.bits for r in rows) == sum(r.count * r.bits for r in network_memory(net))


def test_one_gain_needs_no_gains():
    model = Net(0.5)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=8, membrane_bits=16), X, quiet=True)
    sq.freeze(model)
    assert sq.lower(model, X).decoder.gains is None


def test_scales_too_far_apart_are_refused():
    found = SimpleNamespace(params={"v_load": torch.tensor([1.0, 1.0, 4.0])}, lsb=torch.tensor([0.5, 0.5, 200.0]))
    module = SimpleNamespace(frozen_integers=lambda: found)
    with pytest.raises(sq.Unsupported, match=r"out: one unit of its channels is worth from 0.5 to 800"):
        membrane_worth(module, (3,), "out")

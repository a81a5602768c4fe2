"""`sq.paths`: what it says of a model, and that no path changes a bit of it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import use_path
from spikequant.nn.products import PATHS


def spikes(*shape, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.lif1 = nn.Conv2d(2, 8, 3, padding=1), sq.nn.LIF(leak=0.75)
        self.fc, self.lif2 = nn.Linear(8 * 36, 10), sq.nn.LIF(leak=0.75)
        with torch.no_grad():
            self.conv.weight.mul_(4)
            self.fc.weight.mul_(4)

    def forward(self, x):
        steps, batch = x.shape[:2]
        x = self.lif1(self.conv(x.flatten(0, 1)).unflatten(0, (steps, batch)))
        return self.lif2(self.fc(x.flatten(2))).sum(0)


@pytest.fixture(scope="module")
def quantized():
    net = Net()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=8), spikes(4, 3, 2, 6, 6), quiet=True)
    return net


def test_paths_name_every_layer(quantized):
    net = copy.deepcopy(quantized).eval()
    assert sq.paths(net)["conv"].path is None
    assert "not run yet" in str(sq.paths(net))
    assert net(spikes(16, 8, 2, 6, 6)).sum() > 0
    found = sq.paths(net)
    assert [row.layer for row in found.layers] == ["conv", "fc"]
    assert {row.path for row in found.layers} <= set(PATHS)
    assert set(found["conv"].milliseconds) == set(PATHS) - {"float64", *found["conv"].refused}
    with pytest.raises(sq.DataError, match="no quantized layer 'nope'; the model has conv, fc"):
        found["nope"]


def test_a_real_model_has_no_paths():
    with pytest.raises(sq.DataError, match=r"no quantized layer; call spikequant.quantize_ first"):
        sq.paths(Net())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("frozen", [False, True])
def test_forced_paths_give_the_same_network(quantized, path, frozen):
    net, x = copy.deepcopy(quantized).eval(), spikes(7, 5, 2, 6, 6, seed=1)
    if frozen:
        sq.freeze(net)
    wanted = net(x)
    assert wanted.sum() > 0
    try:
        with use_path(path):
            got = net(x)
    except sq.Unsupported as refused:
        assert f"path {path} is not proven exact for this layer" in str(refused)  # noqa: PT017
        return
    assert torch.equal(got, wanted)
    assert {row.path for row in sq.paths(net).layers} == {path}


def test_training_on_bytes_learns_what_training_on_floats_learns(quantized):
    nets, x = [copy.deepcopy(quantized) for _ in range(2)], spikes(6, 4, 2, 6, 6)
    for net, path in zip(nets, ("float32", None), strict=True):
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            if path is None:
                out = net(x)
            else:
                with use_path(path):
                    out = net(x)
            (out - 3).square().sum().backward()
            optimizer.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert a.grad.abs().sum() > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_copies_and_pickles_drop_packed_weights(quantized):
    net, x = copy.deepcopy(quantized).eval(), spikes(4, 3, 2, 6, 6)
    wanted = net(x)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert all(not m._cache for m in twin.modules() if isinstance(m, sq.nn.Synapse))
        assert torch.equal(twin(x), wanted)


def test_packed_weights_follow_the_parameter(quantized):
    net, x = copy.deepcopy(quantized).eval(), spikes(4, 3, 2, 6, 6)
    before = net(x)
    with torch.no_grad():
        net.conv.weight.neg_()
        net.fc.weight.neg_()
    after = net(x)
    with use_path("float32"):
        assert torch.equal(net(x), after)
    assert not torch.equal(before, after)

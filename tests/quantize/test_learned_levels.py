"""A layer whose quantizer learns its levels: in training, in the state dict, frozen, in every reader, in memory."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.analyse.memory import memory_rows
from spikequant.law.codebook import code_fields
from spikequant.measure.footprint import c_memory, network_memory
from spikequant.nn import Synapse
from spikequant.readers.c99 import sizes
from spikequant.readers.registry import verify_readers


def plan(bits, **weight):
    rule = {"match": "*", "weight": {"quantizer": "lqnet", "bits": bits, **weight}, "membrane": {"bits": 8}}
    return sq.Plan.from_dict({"rules": [rule]})


class Small(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(2, 6, 3, padding=1), sq.nn.LIF(leak=0.75, threshold=0.4, step_mode="s")
        self.fc1, self.lif2 = nn.Linear(96, wide), sq.nn.LIF(leak=0.75, threshold=0.4, reset="subtract", step_mode="s")
        self.fc2, self.lif3 = nn.Linear(wide, 3), sq.nn.LIF(leak=0.9, threshold=0.3, step_mode="s")

    def forward(self, x):
        count = 0
        for t in range(x.shape[0]):
            hidden = self.lif2(self.fc1(self.lif1(self.conv(x[t])).flatten(1)))
            count = count + self.lif3(self.fc2(hidden))
        return count


def model(bits=2, wide=40, **weight):
    torch.manual_seed(bits)
    net, x = Small(wide), (torch.rand(5, 4, 2, 4, 4) < 0.4).float()
    sq.quantize_(net, plan(bits, **weight), x, quiet=True)
    return net, x


def synapses(net):
    return [m for m in net.modules() if isinstance(m, Synapse)]


def test_training_moves_levels_and_evaluation_does_not():
    net, x = model()
    states = [s.weight_basis.clone() for s in synapses(net)]
    net.eval()
    net(x)
    assert all(torch.equal(s.weight_basis, old) for s, old in zip(synapses(net), states, strict=True))
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        sq.reset(net)
        (net(x) - 1).square().mean().backward()
        assert all(s.weight.grad.abs().sum() > 0 for s in synapses(net))
        optimizer.step()
    assert all(not torch.equal(s.weight_basis, old) for s, old in zip(synapses(net), states, strict=True))
    for s in synapses(net):
        assert torch.equal(s.codes(), s.codes())  # one step of the levels per version of the weights


def test_the_levels_step_once_per_version_of_the_weights():
    net, x = model()
    net.train()
    net(x)
    states = [s.weight_basis.clone() for s in synapses(net)]
    sq.reset(net)
    net(x)
    assert all(torch.equal(s.weight_basis, old) for s, old in zip(synapses(net), states, strict=True))


def test_levels_travel_in_the_state_dict():
    net, x = model()
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        sq.reset(net)
        (net(x) - 1).square().mean().backward()
        optimizer.step()
    other, _ = model()
    other.load_state_dict(net.state_dict())
    sq.reset(net)
    assert torch.equal(copy.deepcopy(net).eval()(x), other.eval()(x))


@pytest.mark.parametrize(("bits", "per_channel"), [(1, True), (2, True), (2, False), (3, True), (6, True)])
def test_integers_in_every_reader(bits, per_channel):
    net, x = model(bits, per_channel=per_channel)
    sq.calibrate(net, [x])
    net.eval()
    before = net(x)
    sq.reset(net)
    sq.freeze(net)
    assert torch.equal(net(x), before)
    assert before.abs().sum() > 0
    integers = sq.lower(net, x)
    assert sq.verify(net, integers, x).differences == 0
    for report in verify_readers(integers, x.numpy()):
        assert report.skipped or (report.differences == 0 and report.spikes > 0), report
    for node in integers.synapses:
        assert code_fields(node.product.codes, node.codebook) is not None
        assert max(len(np.unique(row)) for row in node.product.codes) <= 2**bits
    shapes = {node.name: node.shape for node in integers.neurons}
    counted = {(r.layer, r.role, r.total_bits) for r in network_memory(integers) if r.role in ("weight", "codebook")}
    assert counted == {
        (r.layer, r.role, r.total_bits) for r in memory_rows(net, shapes) if r.role in ("weight", "codebook")
    }
    assert sum(role == "codebook" for _, role, _ in counted) == 3


def test_c_stores_fields_where_that_is_smaller():
    net, x = model(2, wide=64)
    sq.freeze(net)
    found = sizes(sq.lower(net, x))
    linear = found.layers["fc1"][0]
    assert linear == 96 * 64 // 4 + 64 * 4  # two bits a code, four bytes of levels a channel
    assert c_memory(sq.lower(net, x)).flash == found.flash


def test_inputs_with_learned_levels_keep_their_own_scales():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.lif = nn.Linear(5, 7), nn.Linear(5, 7), sq.nn.LIF(leak=0.5, threshold=0.3)

        def forward(self, x):
            return self.lif(self.a(x) + self.b(x))

    torch.manual_seed(0)
    net, x = Two(), (torch.rand(6, 3, 5) < 0.5).float()
    report = sq.quantize_(net, plan(2), x, quiet=True)
    assert any("rescaled" in note for note in report.notes)
    net.train()
    net(x).sum().backward()
    net.eval()
    assert net(x).sum() > 0
    sq.freeze(net)
    assert sq.verify(net, sq.lower(net, x), x).differences == 0

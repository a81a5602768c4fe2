"""A network of another library beside its quantized copy: read for the comparison, then left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.analyse import ann_baseline
from spikequant.measure import network_memory

snn = pytest.importorskip("snntorch")


class Tutorial(nn.Module):
    """As in snnTorch's tutorials: states by hand, a static input, spikes or membranes summed."""

    def __init__(self, out="spikes"):
        super().__init__()
        torch.manual_seed(1)
        self.out = out
        self.fc1, self.lif1 = nn.Linear(8, 6), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(6, 3), snn.Leaky(beta=0.75, learn_threshold=True)
        with torch.no_grad():
            for layer in (self.fc1, self.fc2):
                layer.weight.uniform_(-0.2, 0.6)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for _ in range(7):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes if self.out == "spikes" else membranes).sum(0)


def data():
    torch.manual_seed(2)
    return [(torch.rand(6, 8), torch.randint(0, 3, (6,))) for _ in range(3)]


@pytest.mark.parametrize("out", ["spikes", "membranes"])
def test_a_snntorch_network(out):
    net, rows = Tutorial(out), data()
    twin = copy.deepcopy(net)
    sq.quantize_(twin, sq.Plan.uniform(weight_bits=3, membrane_bits=6), rows[0][0], quiet=True)
    sq.freeze(twin)
    before = copy.deepcopy(net.state_dict())
    found = sq.compare(net, twin, rows)
    assert type(net.lif1) is snn.Leaky
    assert list(net.state_dict()) == list(before)
    assert [layer.layer for layer in found.layers] == ["lif1", "lif2"]
    assert found.steps == 7
    spikes = []
    net.lif1.register_forward_hook(lambda _m, _i, o: spikes.append(o[0].detach()))
    with torch.no_grad():
        outputs = torch.cat([net(x) for x, _ in rows])
    assert found.layers[0].reference_rate == pytest.approx(float(torch.stack(spikes).mean()))
    assert found.layers[0].reference_rate > 0
    right = outputs.argmax(1) == torch.cat([y for _, y in rows])
    assert found.reference.accuracy == pytest.approx(float(right.double().mean()))
    assert found.reference.dense == 7 * (8 * 6 + 6 * 3)
    integers = sq.lower(twin, rows[0][0])
    assert sorted(map(str, found.quantized.memory)) == sorted(map(str, network_memory(integers)))
    assert {row.bits for row in found.reference.memory if row.role in ("weight", "membrane", "leak")} == {32}
    baseline = ann_baseline(twin, rows, rows, epochs=1)
    assert baseline.side.dense == 8 * 6 + 6 * 3


def test_a_neuron_that_no_spec_can_hold_is_named_and_nothing_is_left():
    net = Tutorial()
    net.extra = snn.Alpha(alpha=0.9, beta=0.8)
    with pytest.raises(sq.Unsupported, match="extra"):
        sq.compare(net, net, data())
    assert type(net.lif1) is snn.Leaky
    assert net.training


class Recurrent(nn.Module):
    """A recurrent layer of snnTorch, which is several modules only while it is read."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.fc1, self.lif1 = nn.Linear(8, 6), snn.RLeaky(beta=0.9, linear_features=6)
        self.fc2, self.lif2 = nn.Linear(6, 3), snn.Leaky(beta=0.75)

    def forward(self, x):
        (spk1, mem1), mem2, spikes = self.lif1.init_rleaky(), self.lif2.init_leaky(), []
        for _ in range(7):
            spk1, mem1 = self.lif1(self.fc1(x), spk1, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes).sum(0)


@pytest.mark.parametrize("make", [Tutorial, Recurrent])
def test_the_memory_of_an_unread_reference_holds_states_and_values_of_its_neurons(make):
    net, rows = make(), data()
    twin = copy.deepcopy(net)
    sq.quantize_(twin, sq.Plan.uniform(weight_bits=3, membrane_bits=6), rows[0][0], quiet=True)
    found = sq.compare(net, twin, rows)
    counts = {}
    for row in found.reference.memory:
        counts[row.role] = counts.get(row.role, 0) + row.count
    assert (counts["membrane"], counts["spike_buffer"], counts["threshold"], counts["leak"]) == (9, 9, 2, 2)
    assert counts["weight"] == 8 * 6 + 6 * 3 + (36 if make is Recurrent else 0)

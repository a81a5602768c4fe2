"""A model is copied in the middle of its training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from spikequant.explore.network import SharedNetwork
from spikequant.explore.tree import Tree
from spikequant.nn.copying import copied


class Holds(nn.Module):
    """Keeps its last output, as neurons of other libraries keep their membrane."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("mem", torch.zeros(1))
        self.last = None

    def forward(self, x):
        self.mem = self.last = self.fc(x)
        return self.mem


def test_a_state_with_a_graph_is_copied_without_it():
    net = Holds()
    out = net(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(net)
    twin = copied(net)
    assert torch.equal(twin.mem, out)
    assert twin.mem.is_leaf
    assert twin.mem is twin.last
    assert twin.mem is not net.mem
    assert twin.fc.weight is not net.fc.weight
    assert torch.equal(twin.fc.weight, net.fc.weight)
    assert net.mem.grad_fn is not None


def test_states_in_a_table_or_a_list_are_copied_too():
    net = Holds()
    net(torch.ones(1, 2))
    net.memories = {"v": net.mem, "past": [net.mem, (net.mem,)]}
    twin = copied(net)
    assert twin.memories["v"] is twin.mem is twin.memories["past"][1][0]
    assert twin.mem.is_leaf


def test_a_network_of_spikingjelly_is_copied_right_after_a_training_step():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    net = nn.Sequential(nn.Linear(4, 8), neuron.LIFNode(tau=2.0, step_mode="m"), nn.Linear(8, 3))
    net(torch.rand(4, 12, 4)).sum().backward()
    twin = copied(net)
    assert torch.equal(twin[1].v, net[1].v)
    assert twin[1].v.is_leaf
    SharedNetwork(net, torch.rand(4, 12, 4), [torch.rand(4, 12, 4)], tree=Tree(0))

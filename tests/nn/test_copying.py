"""A model is copied in the middle of its training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

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

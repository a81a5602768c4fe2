"""``count = spikes; count += spikes`` in the user's loop: what leaves a neuron is no part of its state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq

STEPS = 8


class Counting(nn.Module):
    """Adds up in place, from the first spikes on, as SpikingJelly's first examples do."""

    def __init__(self, order: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(6, 5)
        self.lif = sq.nn.LIF(leak=0.9, order=order, reset="subtract", step_mode="s")
        with torch.no_grad():
            self.fc.weight.mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = self.lif(self.fc(x))
        for _ in range(STEPS - 1):
            count += self.lif(self.fc(x))
        return count


@pytest.mark.parametrize("order", ["leak_first", "delayed_reset"])
@pytest.mark.parametrize("quantized", [False, True])
def test_counting_in_place_changes_no_spike_and_trains(order, quantized):
    net, x = Counting(order), torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
    if quantized:
        sq.quantize_(net, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    twin, wanted = copy.deepcopy(net), 0
    for _ in range(STEPS):
        wanted = wanted + twin.lif(twin.fc(x))
    got = net(x)
    assert torch.equal(got, wanted)
    assert got.any()
    got.square().sum().backward()
    assert net.fc.weight.grad is not None
    if quantized:
        sq.reset(net)
        sq.freeze(net)
        assert sq.verify(net, sq.lower(net, x), x).differences == 0

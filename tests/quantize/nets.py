"""Small live networks for the verbs."""

from __future__ import annotations

import torch
from torch import nn

import spikequant as sq
from spikequant.nn import LIF

STEPS, BATCH, INPUTS, HIDDEN, CLASSES = 12, 5, 8, 10, 3


def spikes(*shape, seed=0, rate=0.4):
    """Random spikes."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


@torch.no_grad()
def awake_(net, seed=0, drive=0.15):
    """Weights with which neurons fire."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            module.weight.normal_(drive, 1.2 / module.weight[0].numel() ** 0.5)
            if module.bias is not None:
                module.bias.uniform_(-0.1, 0.15)
    return net


def chain(neuron=LIF, last=LIF, **options):
    """``fc1 lif1 fc2 lif2`` by name, awake."""
    net = nn.Sequential()
    net.add_module("fc1", nn.Linear(INPUTS, HIDDEN))
    net.add_module("lif1", neuron(**options))
    net.add_module("fc2", nn.Linear(HIDDEN, CLASSES))
    net.add_module("lif2", last())
    return awake_(net)


def frozen(net, plan, x):
    """Quantized, frozen, lowered."""
    sq.quantize_(net, plan if isinstance(plan, sq.Plan) else sq.Plan.from_dict(plan), x, quiet=True)
    sq.freeze(net)
    return sq.lower(net, x)


W4U8 = sq.Plan.uniform(weight_bits=4, membrane_bits=8, membrane_rounding="half_even")

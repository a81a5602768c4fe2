"""Small networks that learn in a second, and their data."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import spikequant as sq
from spikequant.data import ArrayBatches
from spikequant.nn import LIF, CubaLIF, LeakyIntegrator

INPUTS, STEPS = 8, 4


class Static(nn.Module):
    """A static input, shown for four steps, through multi-step neurons."""

    def __init__(self, hidden=12):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(INPUTS, hidden), LIF(leak=0.75)
        self.fc2 = nn.Linear(hidden, 2)

    def forward(self, x):
        current = self.fc1(x)
        return self.fc2(self.lif1(current.unsqueeze(0).expand(STEPS, *current.shape))).mean(0)


class Looped(nn.Module):
    """A recurrent layer of current-based neurons and a readout membrane, in a loop over ``[T, N, ...]``."""

    def __init__(self, hidden=12):
        super().__init__()
        self.hidden = hidden
        self.fc1, self.rec = nn.Linear(INPUTS, hidden), nn.Linear(hidden, hidden, bias=False)
        self.lif = CubaLIF(leak=0.75, leak_i=0.5, step_mode="s")
        self.fc2, self.out = nn.Linear(hidden, 2), LeakyIntegrator(leak=0.75, step_mode="s")
        with torch.no_grad():
            self.rec.weight.mul_(0.3)

    def forward(self, x):
        spike = torch.zeros(x.shape[1], self.hidden)
        total = 0
        for t in range(x.shape[0]):
            spike = self.lif(self.fc1(x[t]) + self.rec(spike))
            total = total + self.out(self.fc2(spike))
        return total


def arrays(seed=0, samples=192):
    """Two classes that a line divides."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, INPUTS)).astype(np.float32)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)


def batches(seed=0, samples=192, **options):
    """Static batches of 32."""
    return ArrayBatches(*arrays(seed, samples), batch_size=options.pop("batch_size", 32), **options)


def timed(seed=0, samples=192, steps=STEPS):
    """The same with a time axis in front, as a list."""
    return [(x.unsqueeze(0).repeat(steps, 1, 1), y) for x, y in batches(seed, samples)]


def trained(build=Static, rows=None, epochs=12):
    """A float network that has learned."""
    torch.manual_seed(0)
    net = build()
    sq.fit(net, batches(shuffle=True) if rows is None else rows, epochs=epochs, lr=0.02, quiet=True)
    return net

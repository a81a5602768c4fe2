"""A network quantized at many bits does what the real one does.

Simulation and golden model read the same law, so their equality cannot see a neuron that
both of them get wrong.  The real network can: at 16-bit weights and 24-bit states hardly a
spike may differ.
"""

from __future__ import annotations

import copy
import random

import pytest
import torch
from tests.conformance.families import SPECIALS, special
from torch import nn

import spikequant as sq
from spikequant.nn import IF, LIF, AdaptiveLIF, CubaLIF, LeakyIntegrator, MultiSpikeIF, Neuron, SingleState

WIDE = {"bits": 24, "rounding": "half_even", "limit": 32.0}
STEPS, BATCH, INPUTS, WIDTH = 48, 6, 10, 24
THRESHOLDS = torch.linspace(0.7, 1.4, WIDTH)

NEURONS = {
    "lif": lambda: LIF(leak=0.9),
    "lif, subtract": lambda: LIF(leak=0.9, reset="subtract", threshold=THRESHOLDS),
    "lif, no reset": lambda: LIF(leak=0.7, reset="none"),
    "lif, leak last": lambda: LIF(leak=0.75, order="leak_last", threshold=THRESHOLDS),
    "lif, delayed": lambda: LIF(leak=0.8, order="delayed_reset", reset="subtract"),
    "lif, delayed zero": lambda: LIF(leak=0.8, order="delayed_reset", reset="zero"),
    "if": lambda: IF(),
    "if, zero": lambda: IF(reset="zero"),
    "cuba": lambda: CubaLIF(leak=0.6, leak_i=0.5, threshold=THRESHOLDS),
    "cuba, subtract": lambda: CubaLIF(leak=0.9, leak_i=0.3, reset="subtract", threshold=2.0),
    "single": lambda: SingleState(leak=0.9),
    "adaptive": lambda: AdaptiveLIF(leak=0.9, leak_a=0.95, adapt=0.2, refractory=2),
    "multi": lambda: MultiSpikeIF(threshold=0.4, spikes_max=5),
    "integrator": lambda: LeakyIntegrator(leak=0.9),
}


class Layer(nn.Module):
    def __init__(self, neuron, *, norm):
        super().__init__()
        self.fc = nn.Linear(INPUTS, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH) if norm else nn.Identity()
        self.neuron = neuron

    def forward(self, x):
        current = self.norm(self.fc(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        return self.neuron(current)


def pair(neuron, *, norm=False):
    """Outputs of a real layer and of the same one, quantized widely and frozen."""
    torch.manual_seed(3)
    model = Layer(neuron, norm=norm).eval()
    with torch.no_grad():
        model.fc.weight.normal_(0.12, 0.3)
        model.fc.bias.uniform_(-0.1, 0.2)
        if norm:
            model.norm.running_mean.uniform_(-0.2, 0.4)
            model.norm.running_var.uniform_(0.2, 1.0)
            model.norm.weight.uniform_(-1.0, 1.0)
            model.norm.bias.uniform_(-0.1, 0.5)
    x = (torch.rand(STEPS, BATCH, INPUTS) < 0.4).float()
    with torch.no_grad():
        real = model(x)
        wide = copy.deepcopy(model)
        rule = {"match": "neuron", "membrane": WIDE, "leak": {"bits": 16}}
        plan = {
            "rules": [
                {"match": "fc", "weight": {"bits": 16}},
                rule | ({"current": WIDE} if neuron.spec.has_current else {}),
            ]
        }
        sq.quantize_(wide, sq.Plan.from_dict(plan), x, quiet=True)
        sq.freeze(wide)
        return real, wide(x)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("name", NEURONS)
def test_hardly_a_spike_differs(name, norm):
    if name == "integrator" and norm:
        with pytest.raises(
            sq.Unsupported, match="batch norm in front of a readout gives every channel a scale of its own"
        ):
            pair(NEURONS[name](), norm=norm)
        return
    real, wide = pair(NEURONS[name](), norm=norm)
    if name == "integrator":
        assert torch.allclose(real, wide, atol=2e-3 * float(real.abs().max()))
        return
    assert float(real.mean()) > 0.02
    assert float((real != wide).float().mean()) < 0.005


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SPECIALS)
def test_neurons_without_a_constructor(name, seed):
    dice = random.Random(seed)
    dice.choice = lambda options, choice=dice.choice: name if options is SPECIALS else choice(options)
    spec, values = special(dice, lambda _: None)
    exact = {"rounding": None} if spec.leak.form in ("shift", "shift_forced", "two_shifts") else {}
    spec = spec.replace(leak=type(spec.leak)(form=spec.leak.form, bits=spec.leak.bits, **exact))
    real, wide = pair(Neuron(spec, values))
    assert float(real.mean()) > 0.02
    assert float((real != wide).float().mean()) < 0.01

"""Kernels of which a picture meets only some taps: gradients go straight to the float weights, those of the others are 0."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn.coded_weight import CodedWeight
from spikequant.nn.over_time import OverTime

LAYERS = {
    "one place": (nn.Conv2d(33, 40, 3, padding=1), (1, 1)),
    "a stride": (nn.Conv2d(33, 40, 3, stride=2, padding=1), (2, 2)),
    "a line": (nn.Conv1d(33, 40, 3, padding=1), (1,)),
    "a row": (nn.Conv2d(33, 40, 3, padding=1), (1, 4)),
}


def derived(model, x, curved):
    """Gradients of the parameters, or of the sum of their squares."""
    y = model(x)
    loss = (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).square().sum()
    found = torch.autograd.grad(loss, list(model.parameters()), create_graph=curved)
    if not curved:
        return [y, *found]
    return [y, *torch.autograd.grad(sum((g**2).sum() for g in found), list(model.parameters()), allow_unused=True)]


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_through_the_codes(monkeypatch, name, curved):
    torch.manual_seed(0)
    layer, size = LAYERS[name]
    model = nn.Sequential(OverTime(copy.deepcopy(layer)), sq.nn.LIF())
    with torch.no_grad():
        model[0].layer.weight.mul_(4)
    x = (torch.rand(4, 16, 33, *size) < 0.3).float()
    plan = sq.Plan.uniform(weight_bits=6, membrane_bits=8)
    sq.quantize_(model, plan, x, quiet=True)
    model.train()
    found = derived(model, x, curved)
    monkeypatch.setattr(CodedWeight, "_coding", lambda *_: None)
    model.train()
    wanted = derived(model, x, curved)
    assert torch.equal(found[0], wanted[0])
    assert found[0].sum() > 0
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()) + 1e-12)
    if not curved:
        assert float(found[1].abs().max()) > 0
        assert bool((found[1] == 0).flatten(2).all(0).all(0).any())

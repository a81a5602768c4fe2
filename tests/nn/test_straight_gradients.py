"""Gradients that go from a product straight to the float weights are those that go through the codes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import LIF
from spikequant.nn.over_time import OverTime
from spikequant.nn.synapse import Synapse

NETWORKS = {
    "matrix": (lambda: nn.Sequential(nn.Linear(90, 80), LIF(), nn.Linear(80, 3)), (6, 40, 90)),
    "narrow": (lambda: nn.Sequential(nn.Linear(9, 8), LIF(), nn.Linear(8, 3)), (5, 4, 9)),
    "conv": (
        lambda: nn.Sequential(
            OverTime(nn.Conv2d(2, 6, 3, padding=1)), LIF(), OverTime(nn.Conv2d(6, 4, 3, stride=2)), LIF()
        ),
        (5, 6, 2, 9, 9),
    ),
    "padding alone": (lambda: nn.Sequential(OverTime(nn.Conv2d(3, 40, 3, padding=1)), LIF()), (5, 6, 3, 1, 1)),
}


def gradients(net, x, *, curved):
    """Of the weights, or of a function of the gradients of weights and input."""
    x = x.clone().requires_grad_(curved)
    weights = [p for p in net.parameters() if p.requires_grad]
    out = net(x)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    if not curved:
        return torch.autograd.grad((out * direction).sum(), weights)
    first = torch.autograd.grad((torch.sin(out) * direction).sum(), [x, *weights], create_graph=True)
    return torch.autograd.grad(sum((g**2).sum() for g in first), weights, allow_unused=True)


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("clipping", ["mse", "max"])
@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_the_same(name, clipping, curved, monkeypatch):
    torch.manual_seed(3)
    make, shape = NETWORKS[name]
    net, x = make(), (torch.rand(shape) < 0.12).float()
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.weight.data.mul_(3)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4, membrane_bits=8, weight_clipping=clipping), x, quiet=True)
    straight = gradients(net.train(), x, curved=curved)
    monkeypatch.setattr(Synapse, "_coding_of", lambda self, gain: None)
    through = gradients(net.train(), x, curved=curved)
    assert sum(float(g.abs().sum()) for g in straight if g is not None) > 0
    for one, other in zip(straight, through, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


def test_two_forward_passes_and_then_two_backward_passes():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(90, 80), LIF()), (torch.rand(6, 40, 90) < 0.1).float()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=8), x, quiet=True)
    net.train()
    one, two = net(x).sum(), net(x.flip(0)).sum()
    one.backward()
    first = net[0].weight.grad.clone()
    two.backward()
    both = net[0].weight.grad.clone()
    net.zero_grad()
    net(x.flip(0)).sum().backward()
    torch.testing.assert_close(both - first, net[0].weight.grad, rtol=1e-4, atol=1e-5)


def test_a_scale_that_changes_before_the_backward_pass_is_an_error():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(90, 80), LIF()), (torch.rand(6, 40, 90) < 0.1).float()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=8, weight_clipping="mse"), x, quiet=True)
    out = net.train()(x).sum()
    net[0].weight_scale.mul_(2)
    with pytest.raises(RuntimeError, match="inplace"):
        out.backward()

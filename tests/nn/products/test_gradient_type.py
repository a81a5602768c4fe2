"""Gradients in bfloat16: asked for, near those in float32, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import use_gradients
from spikequant.nn.over_time import OverTime
from spikequant.nn.products import gradient_type

HALF_LAST_BIT = 2.0**-9


def network():
    torch.manual_seed(0)
    convs = [nn.Conv2d(2, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)]
    fc = nn.Linear(64 * 36, 5)
    with torch.no_grad():
        for layer in (*convs, fc):
            layer.weight.mul_(3)
    net = nn.Sequential(
        OverTime(convs[0]), sq.nn.LIF(), OverTime(convs[1]), sq.nn.LIF(), nn.Flatten(2), fc, sq.nn.LIF()
    )
    x = (torch.rand(4, 3, 2, 6, 6) < 0.3).float()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=8), x, quiet=True)
    return net, x


def step(net, x):
    net.zero_grad()
    y = net(x)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    return y.detach(), {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


def test_outputs_are_equal_and_gradients_near():
    net, x = network()
    wanted, exact = step(net, x)
    with use_gradients("bfloat16"):
        got, rounded = step(net, x)
    assert torch.equal(got, wanted)
    assert wanted.sum() > 0
    moved = 0
    for name, expected in exact.items():
        error = float((rounded[name] - expected).norm() / expected.norm())
        assert error <= 16 * HALF_LAST_BIT, (name, error)
        assert rounded[name].dtype == expected.dtype
        moved += error > 0
    assert moved >= 3


def test_the_type_is_that_of_the_forward_pass():
    net, x = network()
    _, exact = step(net, x)
    with use_gradients("bfloat16"):
        y = net(x)
    net.zero_grad()
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    assert any(not torch.equal(p.grad, exact[n]) for n, p in net.named_parameters() if p.grad is not None)
    assert gradient_type() is torch.float32


def test_a_backward_pass_that_is_differentiated_stays_in_float32():
    net, x = network()
    parameters, found = list(net.parameters()), []
    for name in ("float32", "bfloat16"):
        with use_gradients(name):
            loss = (net(x).sum(0) ** 2).mean()
            found.append(torch.autograd.grad(loss, parameters, create_graph=True))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert all(one.requires_grad for one in found[1])


def test_it_is_asked_for_by_name(monkeypatch):
    with pytest.raises(sq.Unsupported, match="'float16'; expected one of float32, bfloat16"), use_gradients("float16"):
        pass
    with pytest.raises(RuntimeError, match="on purpose"), use_gradients("bfloat16"):
        raise RuntimeError("on purpose")
    assert gradient_type() is torch.float32
    monkeypatch.setenv("SPIKEQUANT_GRADIENTS", "bfloat16")
    assert gradient_type() is torch.bfloat16
    monkeypatch.setenv("SPIKEQUANT_GRADIENTS", "half")
    with pytest.raises(sq.Unsupported, match="no type of gradients 'half'"):
        gradient_type()

"""The reference networks: shapes, and that they quantize, freeze, lower and verify."""

from __future__ import annotations

import copy

import pytest
import torch

import spikequant as sq
from spikequant.models import ConvSNN, digits_net, mnist_net


@pytest.mark.parametrize(("build", "size"), [(digits_net, 8), (mnist_net, 28)])
def test_shapes_and_gradients(build, size):
    torch.manual_seed(0)
    net = build()
    out = net(torch.rand(4, 1, size, size))
    assert out.shape == (4, 10)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@torch.no_grad()
def test_options_are_used():
    net = ConvSNN(
        in_channels=3, size=12, channels=(4, 6), classes=7, steps=3, kernel=3, pool=2, leak=0.9, reset="subtract"
    )
    assert net(torch.rand(2, 3, 12, 12)).shape == (2, 7)
    assert net.steps == 3
    assert float(net.lif1.leak) == pytest.approx(0.9)
    assert net.lif2.spec.reset == "subtract"
    assert net.lif1.detach_reset


@torch.no_grad()
def test_a_small_one_becomes_integers():
    torch.manual_seed(0)
    net, x = ConvSNN(size=8, channels=(4, 6), kernel=3, pool=1, steps=5).eval(), torch.rand(6, 1, 8, 8)
    net.norm1.weight.mul_(2.0)
    net.norm1.bias.fill_(0.6)
    net.conv2.layer[1].bias.fill_(0.5)
    real = copy.deepcopy(net)
    sq.quantize_(net, sq.Plan.uniform(weight_bits=8, membrane_bits=12), x, quiet=True)
    sq.calibrate(net, [x], refit_norms=False)
    assert float((net(x) - real(x)).abs().max()) < 0.2
    sq.freeze(net)
    report = sq.verify(net, sq.lower(net, x), x)
    assert report.differences == 0
    assert 0.02 < report.spikes / report.neuron_steps < 0.9

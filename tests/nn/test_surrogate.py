"""Surrogate derivatives against antiderivatives, and the gradient of the spike that uses them."""

from __future__ import annotations

import math

import pytest
import torch

from spikequant.law.errors import Unsupported
from spikequant.nn import Surrogate, TorchOps
from spikequant.nn.surrogate import DERIVATIVES

# What each derivative is the derivative of, written down independently.
ANTIDERIVATIVES = {
    "atan": lambda u, k: torch.atan(math.pi / 2 * k * u) / math.pi + 0.5,
    "sigmoid": lambda u, k: 1 / (1 + torch.exp(-k * u)),
    "fast_sigmoid": lambda u, k: u / (1 + k * u.abs()),
    "gaussian": lambda u, k: 0.5 * (1 + torch.erf(k * u / math.sqrt(2))),
    "triangle": lambda u, k: torch.where(
        (k * u).abs() < 1, 0.5 + k * u - torch.sign(u) * (k * u) ** 2 / 2, 0.5 + 0.5 * torch.sign(u)
    ),
    "boxcar": lambda u, k: (k * u).clamp(-0.5, 0.5),
    "straight_through": lambda u, k: k * u,
}


@pytest.mark.parametrize("slope", [0.5, 2.0, 25.0])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(name, slope):
    u = (torch.linspace(-3, 3, 301, dtype=torch.float64) + 0.0013).requires_grad_()
    (wanted,) = torch.autograd.grad(ANTIDERIVATIVES[name](u, slope).sum(), u)
    got = Surrogate(name, slope).derivative(u.detach().clone())
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    assert got.max() > 0


@pytest.mark.parametrize("name", DERIVATIVES)
def test_the_spike_passes_the_surrogate_to_all_of_its_arguments(name):
    """The backward pass (a short form for the default) against the formula, for membrane, threshold and LSB."""
    surrogate = Surrogate(name, 1.5)
    torch.manual_seed(0)
    a = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    b, lsb = (torch.rand(4, dtype=torch.float64).add(0.5).requires_grad_() for _ in range(2))
    weight = torch.randn(5, 4, dtype=torch.float64)
    ops = TorchOps(surrogate=surrogate, lsb=lsb, detach_reset=False, like=a)
    got = torch.autograd.grad((ops.ge(a, b) * weight).sum(), (a, b, lsb))
    with torch.no_grad():
        g = weight * surrogate.derivative((a - b) * lsb)
        wanted = (g * lsb, -(g * lsb).sum(0), (g * (a - b)).sum(0))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_second_derivative(name):
    surrogate = Surrogate(name, 1.5)
    u = torch.linspace(-0.9, 0.9, 40, dtype=torch.float64, requires_grad=True)
    if name in ("boxcar", "straight_through"):
        assert (
            not surrogate.derivative(u).requires_grad
            or torch.autograd.grad(surrogate.derivative(u).sum(), u)[0].eq(0).all()
        )
        return
    assert torch.autograd.gradcheck(surrogate.derivative, (u,))


def test_unknown_surrogates_list_the_known_ones():
    with pytest.raises(
        Unsupported, match="surrogate 'relu' with slope 2.0; expected one of atan, sigmoid, .* and a slope > 0"
    ):
        Surrogate("relu")
    with pytest.raises(Unsupported, match="slope 0"):
        Surrogate("atan", 0)


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_spike_has_the_gradient_of_the_real_difference(create_graph):
    a = torch.tensor([3.0, 5.0, 9.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    lsb = torch.tensor([0.25, 0.5, 0.125], dtype=torch.float64, requires_grad=True)
    ops = TorchOps(surrogate=Surrogate("sigmoid", 2.0), lsb=lsb, detach_reset=False, like=a)
    fired = ops.ge(a, b)
    assert fired.tolist() == [0, 1, 1]
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    got = torch.autograd.grad((fired * weights).sum(), (a, b, lsb), create_graph=create_graph)
    smooth = (torch.sigmoid(2.0 * (a - b) * lsb) * weights).sum()
    wanted = torch.autograd.grad(smooth, (a, b, lsb), create_graph=create_graph)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)
    if create_graph:
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in got), (a, b, lsb))
        expected = torch.autograd.grad(sum(g.pow(2).sum() for g in wanted), (a, b, lsb))
        for one, other in zip(second, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_shift_clip_and_where_gradients():
    a = torch.tensor([-7.0, 5.0, 40.0], requires_grad=True)
    ops = TorchOps(surrogate=Surrogate(), lsb=torch.ones(()), detach_reset=True, like=a)
    shifted = ops.shr(a, ops.const(2), "floor")
    assert shifted.tolist() == [-2.0, 1.0, 10.0]
    clipped = ops.clip(shifted, -4, 4)
    assert torch.autograd.grad(clipped.sum(), a)[0].tolist() == [0.25, 0.25, 0.0]
    spike = torch.tensor([0.0, 1.0, 1.0], requires_grad=True)
    chosen = ops.where(spike, ops.const(0), a)
    assert chosen.tolist() == [-7.0, 0.0, 0.0]
    assert torch.autograd.grad(chosen.sum(), spike, allow_unused=True)[0] is None
    kept = TorchOps(surrogate=Surrogate(), lsb=None, detach_reset=False, like=a).where(spike, a - 1, a)
    assert torch.autograd.grad(kept.sum(), spike)[0].tolist() == [-1.0, -1.0, -1.0]

"""Codes in one pass are the quantizer's codes, and their gradients its gradients."""

from __future__ import annotations

import pytest
import torch

from spikequant.nn.products.encode import encoded
from spikequant.quantizers import LSQ, PowerOfTwo, Uniform

QUANTIZERS = {
    "uniform": Uniform(4),
    "full range": Uniform(8, grid="full_range"),
    "unsigned": Uniform(3, signed=False),
    "symmetric": Uniform(3, grid="symmetric"),
    "floor": Uniform(4, rounding="floor"),
    "lsq": LSQ(4),
    "power of two": PowerOfTwo(4),
}


@pytest.mark.parametrize("shape", [(5, 7), (3, 2, 3, 3), (1, 1), (64, 33, 3, 3)])
@pytest.mark.parametrize("channel_axis", [0, None])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_and_gradients(name, channel_axis, shape):
    torch.manual_seed(0)
    quantizer, weight = QUANTIZERS[name], torch.randn(shape)
    scale = quantizer.fit(weight, channel_axis=channel_axis) * 0.6  # some are clipped
    if scale.dim():
        weight.view(shape[0], -1)[:, 0] = 2.5 * scale.reshape(-1)  # ties
    plain, ours = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    a, b = quantizer.codes(plain, scale), encoded(quantizer, ours, scale)
    assert torch.equal(a, b)
    g = torch.randn(shape)
    assert torch.equal(*(torch.autograd.grad(c, w, g, retain_graph=True)[0] for c, w in ((a, plain), (b, ours))))
    curved = [torch.autograd.grad((c**3).sum(), w, create_graph=True)[0] for c, w in ((a, plain), (b, ours))]
    second = [torch.autograd.grad((d**2).sum(), w)[0] for d, w in zip(curved, (plain, ours), strict=True)]
    torch.testing.assert_close(second[1], second[0])


def test_a_learned_scale_learns():
    quantizer = Uniform(4, scale_mode="learned")
    weight, scale = torch.randn(4, 5), torch.full((4, 1), 0.1, requires_grad=True)
    encoded(quantizer, weight, scale).sum().backward()
    assert scale.grad is not None
    assert float(scale.grad.abs().sum()) > 0


def test_no_number_stays_no_number():
    weight = torch.tensor([[float("nan"), float("inf"), -float("inf")]])
    wanted = Uniform(4).codes(weight, torch.ones(1, 1))
    torch.testing.assert_close(encoded(Uniform(4), weight, torch.ones(1, 1)), wanted, equal_nan=True)

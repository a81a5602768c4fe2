"""Gradients, first and second, are those of torch's own operations up to float rounding."""

from __future__ import annotations

import pytest
import torch
from tests.nn.products.cases import case

from spikequant.law.errors import Unsupported
from spikequant.nn.products import Geometry, Widths, event_gradients, gradients, kernels, use_path
from spikequant.nn.products.byte_input import as_bytes


def first_and_second(function, x, codes):
    """Output, gradients of a fixed projection, gradients of a curved loss, and of their squares."""
    x, codes = x.clone().requires_grad_(), codes.clone().requires_grad_()
    out = function(x * 1, codes * 1)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = [*torch.autograd.grad(out, [x, codes], direction, retain_graph=True)]
    out = function(x * 1, codes * 1)
    curved = torch.autograd.grad(torch.sin(out * 1e-3).sum(), [x, codes], create_graph=True)
    second = torch.autograd.grad(sum((part**2).sum() for part in curved), [x, codes])
    return [out, *found, *curved, *second]


@pytest.mark.parametrize("path", ["float32", "int8_onednn", "int8_vnni", "events"])
@pytest.mark.parametrize("seed", range(8))
def test_gradients(path, seed):
    for k in range(6):
        made = case(100 * seed + k)
        with use_path(path):
            try:
                got = first_and_second(lambda x, c, m=made: m.sums(x, c)[0], made.x, made.codes)
            except Unsupported:
                continue
        wanted = first_and_second(made.plainly, made.x, made.codes)
        for ours, plain in zip(got, wanted, strict=True):
            assert ours.shape == plain.shape
            tolerance = 1e-5 * float(plain.detach().abs().max()) + 1e-6
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=tolerance)


def suits_the_kernel(made):
    """Stride 1, no groups, counts."""
    geometry = made.geometry.in_two_axes()
    return geometry.groups == 1 and geometry.stride == (1, 1) and made.widths.x_low == 0


@pytest.mark.skipif(not kernels.has_vnni(), reason="the event kernel is for processors with VNNI")
@pytest.mark.parametrize("number", range(24))
def test_the_weight_gradient_of_events(number, monkeypatch):
    monkeypatch.setattr(event_gradients, "CACHE", 1 << 12)  # many passes also of these small pictures
    made = [c for c in map(case, range(9000, 9100)) if suits_the_kernel(c)][number]
    geometry = made.geometry.in_two_axes()
    features = len(made.geometry.weight_shape) - 1 if made.geometry.is_conv else 1
    x = made.x.reshape(-1, *made.x.shape[-features:])
    x = x.reshape(*x.shape[:2], *((1, 1) if features == 1 else x.shape[2:] if features == 3 else (1, x.shape[2])))
    packed = as_bytes(x, geometry, made.widths)
    g = torch.randn(packed.output_shape)
    events = event_gradients.weight_gradient_of_events(g, packed)
    dense = gradients.weight_gradient(g.double(), x.double(), torch.zeros(geometry.weight_shape).double(), geometry)
    assert packed.live == int(torch.count_nonzero(x))
    torch.testing.assert_close(events.double(), dense, rtol=1e-4, atol=1e-5 * float(dense.abs().max() + 1))


SHAPES = [
    (Geometry((70, 130)).in_two_axes(), (1, 1), 40),
    (Geometry((64, 65)).in_two_axes(), (1, 1), 1100),
    (Geometry((100, 67, 1, 1), (1, 1), (0, 0), (1, 1)), (1, 1), 30),
]


@pytest.mark.skipif(not kernels.has_vnni(), reason="the event kernel is for processors with VNNI")
@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize(("geometry", "size", "batch"), SHAPES, ids=str)
def test_matrices_by_events(geometry, size, batch, most):
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, geometry.channels, *size)
    x = (torch.rand(shape, generator=generator) < 0.1) * torch.randint(1, most + 1, shape, generator=generator)
    packed = as_bytes(x.float(), geometry, Widths(0, most, -8, 7, 10))
    g = torch.randn(packed.output_shape, generator=generator)
    found = event_gradients.event_gradient(g, packed)
    dense = gradients.weight_gradient(g.double(), x.double(), torch.zeros(geometry.weight_shape).double(), geometry)
    assert found is not None
    assert float(dense.abs().max()) > 0.1
    torch.testing.assert_close(found.double(), dense, rtol=1e-4, atol=1e-5 * float(dense.abs().max() + 1))
    dense_input = as_bytes(torch.ones(shape), geometry, Widths(0, most, -8, 7, 10))
    assert event_gradients.event_gradient(g, dense_input) is None


def test_spikes_are_kept_as_bytes(monkeypatch):
    if not kernels.has_vnni():
        pytest.skip("no byte path on this machine")
    made = next(c for c in map(case, range(200)) if c.widths.x_high == 1 and c.geometry.is_conv and c.pad is None)
    kept = []
    codes = made.codes.clone().requires_grad_()
    with use_path("int8_vnni"), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        made.sums((made.x.clone().requires_grad_() * 1), codes)
    assert not any(t.shape[-len(made.x.shape[1:]) :] == made.x.shape[1:] and t.stride()[0] for t in kept if t.dim() > 3)

"""LSQ against the equations of its paper."""

import math

import pytest
import torch

from spikequant.law.errors import PlanError
from spikequant.quantizers import LSQ


def paper_gradients(x, s, qn, qp, upstream):
    """Equation 3 and section 2.2, elementwise: no autograd."""
    units = x / s
    inside = (units > -qn) & (units < qp)
    ds = torch.where(inside, units.round() - units, torch.where(units <= -qn, -float(qn), float(qp)))
    per_scale = x.numel() / s.numel()
    axes = tuple(i for i in range(x.dim()) if s.dim() == 0 or s.shape[i] == 1)
    ds = (upstream * ds).sum(dim=axes, keepdim=s.dim() > 0) / math.sqrt(per_scale * qp)
    return upstream * inside, ds


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("axis", [None, 0])
def test_gradients_are_the_papers(bits, signed, axis):
    q = LSQ(bits, signed=signed)
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(6, 50, generator=generator, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(6, 50, generator=generator, dtype=torch.float64)
    parameter = (q.fit(x, channel_axis=axis) * 0.3).requires_grad_()
    scale = q.graph_scale(parameter, x)
    dx, ds = torch.autograd.grad((q.codes(x, scale) * scale * upstream).sum(), (x, parameter))
    qn, qp = (2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    expected_dx, expected_ds = paper_gradients(x.detach(), parameter.detach(), qn, qp, upstream)
    assert torch.allclose(dx, expected_dx, rtol=0, atol=1e-6)
    assert torch.allclose(ds, expected_ds, rtol=0, atol=1e-6)
    assert ds.abs().min() > 0


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_first_scale(axis):
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    mean = x.abs().mean() if axis is None else x.abs().mean(dim=1 - axis, keepdim=True)
    assert torch.allclose(LSQ(4).fit(x, channel_axis=axis), 2 * mean / math.sqrt(7))
    assert LSQ(4).fit(torch.zeros(3)).item() == 1


def test_a_step_is_learned():
    q = LSQ(3)
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    parameter = torch.nn.Parameter(q.fit(x) * 4)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    errors = []
    for _ in range(60):
        scale = q.graph_scale(parameter, x)
        error = ((q.codes(x, scale) * scale - x) ** 2).sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.2 * errors[0]


def test_negative_parameter_is_caught():
    q = LSQ(3)
    parameter = torch.tensor(-0.5, requires_grad=True)
    x = torch.tensor([-1.0, 1.0, 1.0])
    scale = q.graph_scale(parameter, x)
    codes = q.codes(x, scale)
    assert codes.tolist() == [-4.0, 3.0, 3.0]
    assert torch.autograd.grad((codes * scale).sum(), parameter)[0].item() == pytest.approx(2 / math.sqrt(9))


def test_refusals():
    with pytest.raises(PlanError, match="lsq: bits is 1; expected an integer from 2 to 16"):
        LSQ(1)
    assert LSQ(1, signed=False).levels == range(2)

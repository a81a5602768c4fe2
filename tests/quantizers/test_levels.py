"""Power-of-two, ternary and binary codes against brute force."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikequant.law.errors import DataError, PlanError
from spikequant.quantizers import Binary, PowerOfTwo, Ternary


def nearest_power(value, levels):
    """Nearest level of a fraction, ties away from zero."""
    return min(levels, key=lambda level: (abs(Fraction(value) - level), -abs(level)))


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_power_of_two_takes_the_nearest_level(bits):
    q = PowerOfTwo(bits)
    top = q.levels[-1]
    x = torch.cat([torch.arange(-40, 41) / 8, top * torch.linspace(-1.2, 1.2, 401), 1.5 * torch.tensor(q.levels)])
    codes = q.codes(x, torch.tensor(1.0))
    assert codes.tolist() == [nearest_power(v, q.levels) for v in x.tolist()]
    assert len(q.levels) == 2**bits - 1
    assert q.code_format.holds(np.array(q.levels))


@given(st.integers(2, 5), st.floats(2**-40, 2**40, width=32))
def test_power_of_two_levels_return(bits, scale):
    q = PowerOfTwo(bits)
    levels = torch.tensor(q.levels, dtype=torch.float32)
    assert torch.equal(q.codes(levels * scale, torch.tensor(scale)), levels)


def test_power_of_two_scale_and_gradient():
    q = PowerOfTwo(4)
    x = torch.tensor([-6.4, 0.3, 1.0, 99.0], requires_grad=True)
    assert q.fit(x[:3]).item() == pytest.approx(0.1)
    scale = torch.tensor(0.1, requires_grad=True)
    dx, dscale = torch.autograd.grad(q.codes(x, scale).sum(), (x, scale))
    assert torch.allclose(dx, torch.tensor([10.0, 10.0, 10.0, 0.0]))
    assert dscale.item() == pytest.approx(510.0, rel=1e-5)


@pytest.mark.parametrize("bits", [1, 6, 2.0, True])
def test_power_of_two_refuses_other_widths(bits):
    with pytest.raises(PlanError, match=r"expected an integer from 2 to 5 .*use Uniform for more levels"):
        PowerOfTwo(bits)


def slow_ternary(x):
    threshold = 0.7 * np.abs(x).mean()
    codes = np.where(x > threshold, 1, np.where(x < -threshold, -1, 0))
    return codes, np.abs(x[codes != 0]).mean()


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_ternary_is_the_papers_rule(axis):
    x = torch.randn(5, 30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scale = Ternary().fit(x, channel_axis=axis)
    codes = Ternary().codes(x, scale)
    parts = {None: [x], 0: list(x), 1: list(x.T)}[axis]
    found = {None: [codes], 0: list(codes), 1: list(codes.T)}[axis]
    for part, code, size in zip(parts, found, scale.reshape(-1).tolist(), strict=True):
        expected, alpha = slow_ternary(part.numpy())
        assert np.array_equal(code.numpy(), expected)
        assert size == pytest.approx(alpha)
    assert set(codes.unique().tolist()) == {-1, 0, 1}


def test_ternary_at_its_threshold_is_zero():
    x = torch.tensor([0.7, -1.3], dtype=torch.float64)
    assert 0.7 * x.abs().mean() == x[0]
    assert Ternary().codes(x, Ternary().fit(x)).tolist() == [0.0, -1.0]


def test_ternary_codes_do_not_move_with_the_scale():
    x = torch.randn(100, generator=torch.Generator().manual_seed(2))
    assert torch.equal(Ternary().codes(x, torch.tensor(1e-3)), Ternary().codes(x, torch.tensor(1e3)))


def test_ternary_gradient_passes_everywhere():
    x = torch.tensor([-5.0, 0.1, 1.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(Ternary().codes(x, torch.tensor(0.5)).sum(), x)
    assert gradient.tolist() == [2.0, 2.0, 2.0]


def test_a_scale_of_another_rank_is_refused():
    with pytest.raises(DataError, match=r"a scale of shape \(3,\) does not belong to a tensor of shape \(2, 3\)"):
        Ternary().codes(torch.ones(2, 3), torch.ones(3))


def test_binary_is_the_sign_times_the_mean():
    x = torch.randn(5, 30, generator=torch.Generator().manual_seed(2))
    x[0, 0], x[0, 1], x[0, 2] = 0.0, -0.0, -1e-45
    scale = Binary().fit(x, channel_axis=0)
    codes = Binary().codes(x, scale)
    assert torch.allclose(scale[:, 0], x.abs().mean(dim=1))
    assert codes[0, :3].tolist() == [1.0, 1.0, -1.0]
    assert torch.equal(codes, torch.where(x >= 0, 1.0, -1.0))


@pytest.mark.parametrize("limit", [0.5, 1.0, float("inf")])
def test_binary_gradient_stops_at_its_limit(limit):
    x = torch.tensor([-3.0, -1.0, 0.2, 0.7], requires_grad=True)
    scale = torch.tensor(0.25, requires_grad=True)
    dx, dscale = torch.autograd.grad(Binary(limit).codes(x, scale).sum(), (x, scale))
    inside = x.detach().abs() <= limit
    assert torch.equal(dx, 4.0 * inside)
    assert dscale.item() == pytest.approx(-(x.detach() * inside).sum().item() * 16)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "1"])
def test_binary_refuses_other_limits(limit):
    with pytest.raises(PlanError, match=r"binary: ste_limit is .*expected a number above 0"):
        Binary(limit)


@pytest.mark.parametrize("q", [Binary(), Ternary(), PowerOfTwo(3)])
def test_nan_is_never_turned_into_a_code(q):
    assert q.codes(torch.tensor([torch.nan, 1.0]), torch.tensor(1.0))[0].isnan()

"""Rounding of tensors against exact fractions, and gradients that are the identity, twice."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikequant.law.errors import DataError, PlanError
from spikequant.law.rounding import DETERMINISTIC_ROUNDINGS, ROUNDINGS, shift_right
from spikequant.quantizers.straight_through import (
    ceil_ste,
    floor_ste,
    round_ste,
    scale_gradient,
    snap_ste,
    straight_through,
)


def oracle(value, rounding):
    exact = Fraction(value)
    low, high = floor(exact), ceil(exact)
    if rounding == "floor" or low == high:
        return low
    if rounding == "toward_zero":
        return low if exact > 0 else high
    if exact - low != Fraction(1, 2):
        return low if exact - low < Fraction(1, 2) else high
    if rounding == "half_up":
        return high
    if rounding == "half_away":
        return high if exact > 0 else low
    return low if low % 2 == 0 else high


floats32 = st.floats(-1e9, 1e9, width=32, allow_subnormal=True)


@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
def test_eighths_round_as_fractions_do(rounding):
    x = torch.arange(-80, 81) / 8
    assert round_ste(x, rounding).tolist() == [oracle(v, rounding) for v in x.tolist()]


@given(floats32, st.sampled_from(DETERMINISTIC_ROUNDINGS))
def test_any_float32_rounds_as_its_fraction(value, rounding):
    assert round_ste(torch.tensor(value), rounding).item() == oracle(value, rounding)


@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
@pytest.mark.parametrize("near", [0.5, -0.5, 1.5, -1.5, 0.0, 4194304.5, 8388607.5, -8388608.0])
def test_neighbours_of_a_tie(rounding, near):
    values = np.array([np.nextafter(np.float32(near), np.float32(d)) for d in (-np.inf, np.inf)] + [near], np.float32)
    assert round_ste(torch.from_numpy(values), rounding).tolist() == [oracle(float(v), rounding) for v in values]


def test_half_up_just_below_a_half():
    x = torch.tensor(0.49999997)
    assert x < 0.5
    assert torch.floor(x + 0.5) == 1  # the usual formula is wrong here
    assert round_ste(x, "half_up") == 0
    assert round_ste(-x, "half_away") == 0


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_agrees_with_the_integer_law(rounding):
    a, words = np.meshgrid(np.arange(-64, 65), np.arange(8))
    law = shift_right(a, 3, rounding, noise=words)
    assert np.array_equal(round_ste(torch.from_numpy(a / 8), rounding, torch.from_numpy(words / 8)).numpy(), law)


@given(floats32, st.integers(0, 2**24 - 1))
def test_stochastic_is_one_of_both_neighbours_and_keeps_integers(value, word):
    noise = torch.tensor(word / 2**24)
    result = round_ste(torch.tensor(value), "stochastic", noise).item()
    assert result in (floor(Fraction(value)), ceil(Fraction(value)))


def test_stochastic_keeps_an_integer_at_the_largest_noise():
    largest = torch.tensor(1 - 2**-24)
    assert torch.floor(torch.tensor(3.0) + largest) == 4  # the usual formula is wrong here
    assert round_ste(torch.tensor(3.0), "stochastic", largest) == 3


def test_stochastic_is_right_on_average():
    x = torch.full((1024,), 2.3)
    assert round_ste(x, "stochastic", torch.arange(1024) / 1024).mean().item() == pytest.approx(2.3, abs=1e-3)


def test_errors():
    with pytest.raises(DataError, match=r"stochastic rounding needs its noise; pass noise=, uniform in \[0, 1\)"):
        round_ste(torch.zeros(2), "stochastic")
    with pytest.raises(PlanError, match="unknown rounding 'nearest'; expected one of floor, toward_zero"):
        round_ste(torch.zeros(2), "nearest")


def test_floor_and_ceil():
    x = torch.arange(-20, 21) / 4
    assert torch.equal(floor_ste(x), x.floor())
    assert torch.equal(ceil_ste(x), x.ceil())


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_gradient_is_one_and_twice_differentiable(rounding):
    x = torch.tensor([-1.3, 0.2, 2.5], dtype=torch.float64, requires_grad=True)
    y = (round_ste(x, rounding, torch.full((3,), 0.5)) ** 3).sum()
    rounded = round_ste(x.detach(), rounding, torch.full((3,), 0.5))
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(first, 3 * rounded**2)
    assert torch.equal(second, 6 * rounded)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, on the first jvp
def test_function_transforms():
    x = torch.tensor([-1.3, 0.2, 2.7])
    square = lambda v: round_ste(v, "half_up") ** 2  # noqa: E731
    assert torch.func.vmap(torch.func.grad(square))(x).tolist() == [-2.0, 0.0, 6.0]
    assert torch.func.jvp(square, (x,), (torch.ones(3),))[1].tolist() == [-2.0, 0.0, 6.0]
    with torch.no_grad():  # which only reverse mode heeds
        assert square(x).tolist() == [1.0, 0.0, 9.0]
        assert torch.func.jvp(square, (x,), (torch.ones(3),))[1].tolist() == [-2.0, 0.0, 6.0]


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.floats(-(2.0**100), 2.0**100, width=32))
def test_straight_through_is_exactly_its_value(value, x):
    assert straight_through(torch.tensor(value), torch.tensor(x, requires_grad=True)).item() == torch.tensor(value)


def test_scale_gradient_changes_the_gradient_only():
    x = torch.tensor([0.1, -7.3], requires_grad=True)
    y = scale_gradient(x, 0.01)
    assert torch.equal(y, x)
    (first,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
    assert torch.allclose(first, 0.03 * x**2)
    assert torch.allclose(torch.autograd.grad(first.sum(), x)[0], 0.0006 * x)


@given(st.integers(-32768, 32767), st.floats(2**-60, 2**60, width=32))
def test_snap_brings_back_every_code(code, scale):
    scale = torch.tensor(scale)
    assert snap_ste(torch.tensor(float(code)) * scale / scale).item() == code


def test_snap_leaves_the_rest():
    x = torch.tensor([0.999, 6.9999, 1e-6, -0.5])
    assert torch.equal(snap_ste(x), x)

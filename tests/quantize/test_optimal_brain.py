"""The surgeon's codes against brute force, least squares and a plain inverse, all written anew in numpy."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.law.errors import DataError
from spikequant.quantize.optimal_brain import damped, descend, quadratic_error, surgeon
from spikequant.quantizers import PowerOfTwo, Ternary, Uniform, nearest_codes


def problem(seed, rows=3, columns=5, samples=40):
    """Correlated inputs, weights, scales."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(samples, columns)) @ generator.normal(size=(columns, columns))
    w = generator.normal(size=(rows, columns))
    return x, w, np.abs(w).max(1) * generator.uniform(0.4, 1.0, rows)


def in_torch(x, w, s):
    return torch.from_numpy(w), torch.from_numpy(s), damped(torch.from_numpy(x.T @ x), 1e-9)


def test_after_one_column_is_fixed_the_others_are_the_least_squares_solution():
    x, w, s = problem(0, rows=1)
    shown = []

    def nearest(units):
        shown.append(float(units[0]) * s[0])
        return torch.round(units)

    surgeon(*in_torch(x, w, s), nearest, largest_first=False)
    first = np.round(w[0, 0] / s[0]) * s[0]
    rest, *_ = np.linalg.lstsq(x[:, 1:], x @ w[0] - x[:, 0] * first, rcond=None)
    assert shown[0] == pytest.approx(w[0, 0])
    assert shown[1] == pytest.approx(rest[0], rel=1e-5)
    second = np.round(rest[0] / s[0]) * s[0]
    last, *_ = np.linalg.lstsq(x[:, 2:], x @ w[0] - x[:, :2] @ [first, second], rcond=None)
    assert shown[2] == pytest.approx(last[0], rel=1e-5)


def by_inverse(w, s, hessian, order):
    """The surgeon with an inverse that is made anew for every column, one row at a time."""
    codes = np.zeros_like(w)
    for r in range(len(w)):
        free, left = w[r].copy(), list(order)
        while left:
            i = left[0]
            inverse = np.linalg.inv(hessian[np.ix_(left, left)])
            codes[r, i] = np.clip(np.round(free[i] / s[r]), -3, 3)
            free[left] -= (free[i] - codes[r, i] * s[r]) / inverse[0, 0] * inverse[:, 0]
            left = left[1:]
    return codes


@pytest.mark.parametrize("largest_first", [True, False])
def test_blocks_and_cholesky_equal_the_plain_inverse(largest_first):
    x, w, s = problem(1, rows=4, columns=150, samples=400)
    hessian = damped(torch.from_numpy(x.T @ x), 0.05)
    order = np.argsort(-hessian.diagonal().numpy(), kind="stable") if largest_first else np.arange(150)
    found = surgeon(
        torch.from_numpy(w),
        torch.from_numpy(s),
        hessian,
        partial(nearest_codes, Uniform(3)),
        largest_first=largest_first,
    )
    assert (found.numpy() == by_inverse(w, s, hessian.numpy(), order)).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), quantizer=st.sampled_from([Ternary(), Uniform(2), PowerOfTwo(2)]))
def test_never_below_brute_force_and_a_sweep_never_raises_it(seed, quantizer):
    x, w, s = problem(seed, rows=2, columns=5)
    weight, scale, hessian = in_torch(x, w, s)
    nearest = partial(nearest_codes, quantizer)
    levels = np.array(list(product(quantizer.levels, repeat=5)), dtype=np.float64)
    found = surgeon(weight, scale, hessian, nearest)
    swept = descend(found, weight, scale, hessian, nearest)
    before, after = (quadratic_error(codes * scale[:, None] - weight, hessian) for codes in (found, swept))
    for r in range(2):
        every = ((levels * s[r] - w[r]) @ hessian.numpy() * (levels * s[r] - w[r])).sum(1)
        least = float(after[r])
        assert every.min() * (1 - 1e-9) <= least <= float(before[r]) * (1 + 1e-9)
        alone = swept[r].numpy().copy()
        for k, level in product(range(5), quantizer.levels):
            other = alone.copy()
            other[k] = level
            change = other * s[r] - w[r]
            assert change @ hessian.numpy() @ change >= least * (1 - 1e-9) - 1e-12


def test_in_the_mean_it_beats_the_nearest_codes_by_far():
    gained = []
    for seed in range(60):
        weight, scale, hessian = in_torch(*problem(seed, columns=8))
        nearest = partial(nearest_codes, Ternary())
        plain = nearest(weight / scale[:, None])
        solved = descend(surgeon(weight, scale, hessian, nearest), weight, scale, hessian, nearest)
        error = [quadratic_error(c * scale[:, None] - weight, hessian).sum() for c in (plain, solved)]
        gained.append(float(error[1] / error[0]))
    assert np.mean(gained) < 0.6


def test_a_silent_input_keeps_the_nearest_codes():
    weight, scale = torch.tensor([[0.2, -0.9, 0.6]]), torch.tensor([1.0])
    nearest = partial(nearest_codes, Ternary())
    assert surgeon(weight, scale, damped(torch.zeros(3, 3)), nearest).tolist() == [[0.0, -1.0, 1.0]]


def test_a_hessian_that_rounding_left_indefinite_is_damped_and_one_that_never_was_is_refused():
    x = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    nearly = x.T @ x - 1e-9 * torch.eye(2, dtype=torch.float64)
    nearest = partial(nearest_codes, Ternary())
    codes = surgeon(torch.tensor([[0.6, 0.6]]), torch.ones(1), nearly, nearest)
    assert codes.sum() == 1.0
    with pytest.raises(DataError, match="not positive definite"):
        surgeon(torch.ones(1, 2), torch.ones(1), -torch.eye(2, dtype=torch.float64), nearest)


def test_what_is_no_hessian_is_refused():
    with pytest.raises(DataError, match=r"a Hessian is square, got \(2, 3\)"):
        damped(torch.zeros(2, 3))
    with pytest.raises(DataError, match="holds NaN or infinity"):
        damped(torch.tensor([[float("nan")]]))

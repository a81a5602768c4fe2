"""Right shifts: every 8-bit value, every shift, every rounding, against definitions in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.law.oracle_neuron import rounded

from spikequant.law.errors import WidthError
from spikequant.law.ops import IntOps
from spikequant.law.rounding import DETERMINISTIC_ROUNDINGS, ROUNDINGS, shift_right
from spikequant.nn.surrogate import Surrogate
from spikequant.nn.torch_ops import TorchOps

BYTES = np.arange(-128, 256)


def nearest(q, tie):
    """Nearest integer; `tie` chooses between the two neighbours of a half."""
    below, above = math.floor(q), math.ceil(q)
    if q - below != above - q:
        return below if q - below < above - q else above
    return tie(below, above)


DEFINITIONS = {
    "floor": math.floor,
    "toward_zero": lambda q: math.floor(q) if q >= 0 else math.ceil(q),
    "half_up": lambda q: nearest(q, max),
    "half_away": lambda q: nearest(q, lambda a, b: b if q > 0 else a),
    "half_even": lambda q: nearest(q, lambda a, b: a if a % 2 == 0 else b),
}


@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
@pytest.mark.parametrize("shift", range(7))
def test_every_byte_and_every_shift(rounding, shift):
    wanted = [DEFINITIONS[rounding](Fraction(int(a), 2**shift)) for a in BYTES]
    assert shift_right(BYTES, shift, rounding).tolist() == wanted
    assert [rounded(Fraction(int(a), 2**shift), rounding) for a in BYTES] == wanted


@pytest.mark.parametrize("shift", range(7))
def test_stochastic_is_the_floor_of_a_sum_and_unbiased(shift):
    total = np.zeros(len(BYTES), dtype=np.int64)
    for u in range(2**shift):
        words = np.full(len(BYTES), u + (0xABCD << 16) * (shift < 16))  # bits above the cut do not matter
        got = shift_right(BYTES, shift, "stochastic", noise=words)
        assert got.tolist() == [math.floor((int(a) + Fraction(u)) / 2**shift) for a in BYTES]
        total += got
    assert np.array_equal(total, BYTES)  # the mean over all words is a / 2^n exactly


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_torch_reads_the_same_shift(rounding):
    words = np.random.default_rng(0).integers(0, 2**32, len(BYTES))
    for shift in range(7):
        for dtype in (torch.float32, torch.float64):
            a = torch.from_numpy(BYTES).to(dtype)
            ops = TorchOps(surrogate=Surrogate(), lsb=torch.ones(()), detach_reset=True, like=a)
            n = torch.tensor(float(shift), dtype=dtype)
            got = ops.shr(a, n, rounding, torch.from_numpy(words) if rounding == "stochastic" else None)
            assert got.tolist() == shift_right(BYTES, shift, rounding, noise=words).tolist()


def test_shifts_may_differ_per_element():
    shifts = np.arange(len(BYTES)) % 7
    for rounding in DETERMINISTIC_ROUNDINGS:
        wanted = [int(shift_right(np.array(a), int(n), rounding)) for a, n in zip(BYTES, shifts, strict=True)]
        assert IntOps().shr(BYTES, shifts, rounding).tolist() == wanted


@given(a=st.integers(-(2**61), 2**61), n=st.integers(0, 62), rounding=st.sampled_from(DETERMINISTIC_ROUNDINGS))
def test_wide_values(a, n, rounding):
    assert int(shift_right(np.array(a), n, rounding)) == DEFINITIONS[rounding](Fraction(a, 2**n))


@given(a=st.integers(-(2**61), 2**61), n=st.integers(0, 32), word=st.integers(0, 2**32 - 1))
def test_wide_values_stochastic(a, n, word):
    got = int(shift_right(np.array(a), n, "stochastic", noise=np.array(word)))
    assert got == math.floor((a + Fraction(word % 2**n)) / 2**n)


@pytest.mark.parametrize(
    ("shift", "rounding", "noise", "text"),
    [
        (-1, "floor", None, "a right shift takes 0 to 62 bits, got -1 to -1"),
        (63, "floor", None, "a right shift takes 0 to 62 bits, got 63 to 63"),
        (1, "stochastic", None, "stochastic rounding needs its noise words; pass noise= (see law/noise.py)"),
        (33, "stochastic", 0, "stochastic rounding cuts at most 32 bits, got 33"),
        (1, "up", None, "unknown rounding 'up'; expected one of " + ", ".join(ROUNDINGS)),
    ],
)
def test_refusals(shift, rounding, noise, text):
    with pytest.raises(WidthError) as caught:
        shift_right(np.array([1]), shift, rounding, noise=None if noise is None else np.array([noise]))
    assert str(caught.value) == text

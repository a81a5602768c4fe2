"""Clip limits against numpy and against searches written the slow way."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from spikequant.law.errors import PlanError
from spikequant.quantizers import (
    FixedClipping,
    KLClipping,
    MaxClipping,
    MSEClipping,
    PercentileClipping,
    PowerOfTwo,
    Uniform,
)


def rows(seed=0, shape=(4, 300)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3


def limit(clipping, x, magnitudes=8):
    return clipping.find_limit(x, lambda values, _: values, magnitudes=magnitudes).numpy()


@given(st.integers(1, 60), st.floats(0.1, 100))
def test_percentile_equals_numpy(count, percent):
    x = rows(count, (3, count))
    expected = np.percentile(np.abs(x.numpy()), percent, axis=1)
    assert np.allclose(limit(PercentileClipping(percent), x), expected, rtol=1e-12)


def slow_mse(x, bits, grid):
    """Best limit of one row for the zero-preserving grid, one candidate at a time."""
    top, widest = 2 ** (bits - 1) - 1, np.abs(x).max()
    errors = []
    for i in range(1, grid + 1):
        scale = widest * i / grid / top
        errors.append(((np.clip(np.round(x / scale), -top, top) * scale - x) ** 2).mean())
    return errors


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_finds_the_least_error_of_its_grid(bits):
    x = rows()
    scale = Uniform(bits, clipping=MSEClipping(50)).fit(x, channel_axis=0)
    top = 2 ** (bits - 1) - 1
    for row, found in zip(x.numpy(), scale[:, 0].tolist(), strict=True):
        errors = slow_mse(row, bits, 50)
        step = found * top / np.abs(row).max() * 50
        assert step == pytest.approx(1 + int(np.argmin(errors)), abs=1e-6)
    assert bits == 8 or (scale < Uniform(bits).fit(x, channel_axis=0)).all()


def test_mse_takes_the_widest_of_equal_errors():
    assert np.array_equal(limit(MSEClipping(10), rows()), limit(MaxClipping(), rows()))


@pytest.mark.parametrize("q", [Uniform(3, clipping=MSEClipping()), PowerOfTwo(4, clipping=MSEClipping())])
def test_mse_is_no_worse_than_max(q):
    x = rows(3, (1, 2000))
    wide = type(q)(q.bits)
    errors = [((p.codes(x, p.fit(x)) * p.fit(x) - x) ** 2).mean() for p in (q, wide)]
    assert errors[0] <= errors[1]


def slow_kl(x, bins, levels):
    """The loop of pytorch-quantization's histogram calibrator, with exact integer group borders."""
    counts = np.histogram(x, bins=bins, range=(0, x.max()))[0].astype(float)
    counts[0] = counts[1]
    best, best_kl = bins, np.inf
    for i in range(max(levels, bins // 16), bins + 1):
        p = counts[:i].copy()
        p[-1] += counts[i:].sum()
        q = np.zeros(i)
        group = np.array([max(j for j in range(levels) if -(-j * i // levels) <= b) for b in range(i)])
        for j in range(levels):
            members = (group == j) & (counts[:i] > 0)
            if members.any():
                q[members] = counts[:i][members].sum() / members.sum()
        kl = entropy(p, q) if q.sum() else np.inf
        if kl <= best_kl + 1e-12:
            best, best_kl = i, kl
    return x.max() * best / bins


@pytest.mark.parametrize(("bins", "levels"), [(64, 4), (64, 8), (96, 7), (128, 64)])
def test_kl_equals_the_slow_loop(bins, levels):
    x = rows(5, (6, 500)).abs()
    expected = [slow_kl(row, bins, levels) for row in x.numpy()]
    found = limit(KLClipping(bins), x, magnitudes=levels)
    assert np.allclose(found, expected, rtol=1e-12)
    assert (found < x.numpy().max(axis=1)).any()


def test_kl_with_as_many_levels_as_bins_is_the_maximum():
    x = rows()
    assert np.array_equal(limit(KLClipping(64), x, magnitudes=64), limit(MaxClipping(), x))


def test_kl_at_its_default_on_a_wide_layer():
    x = torch.randn(64, 576, generator=torch.Generator().manual_seed(1))
    scale = Uniform(8, clipping=KLClipping()).fit(x, channel_axis=0)
    assert scale.shape == (64, 1)
    assert (scale <= Uniform(8).fit(x, channel_axis=0)).all()


@pytest.mark.parametrize(
    "clipping", [MaxClipping(), PercentileClipping(), MSEClipping(20), KLClipping(64), FixedClipping(0.5)]
)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 50))
def test_a_channel_does_not_see_its_neighbours(clipping, seed):
    x = rows(seed, (3, 64))
    q = Uniform(4, clipping=clipping)
    together = q.fit(x, channel_axis=0)
    for row in range(3):
        assert torch.equal(q.fit(x[row]), together[row, 0])


@pytest.mark.parametrize("clipping", [MaxClipping(), PercentileClipping(), MSEClipping(), KLClipping()])
def test_zero_channels(clipping):
    x = torch.zeros(3, 50)
    x[1] = torch.linspace(-1, 1, 50)
    scale = Uniform(4, clipping=clipping).fit(x, channel_axis=0)
    assert scale[0] == scale[2] == 1
    assert 0 < scale[1] < 1


def test_percentile_zero_on_a_sparse_channel_falls_back_to_its_maximum():
    x = torch.zeros(1000)
    x[3] = 0.7
    assert Uniform(4, clipping=PercentileClipping(50)).fit(x).item() == pytest.approx(0.1)


def test_unsigned_ignores_what_is_below_zero():
    x = torch.tensor([-100.0, 1.0, 3.0])
    assert Uniform(2, signed=False).fit(x).item() == 1.0
    assert Uniform(2, signed=False).codes(x, torch.tensor(1.0)).tolist() == [0.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PercentileClipping(0), "percentile clipping: percent is 0; expected a number above 0, up to 100"),
        (lambda: PercentileClipping(100.5), "percent is 100.5"),
        (lambda: MSEClipping(0), "mse clipping: grid is 0; expected an integer of at least 1"),
        (lambda: KLClipping(8), "kl clipping: bins is 8; expected an integer of at least 16"),
        (lambda: FixedClipping(0.0), "fixed clipping: limit is 0.0; expected a finite number above 0"),
        (lambda: FixedClipping(float("nan")), "limit is nan"),
        (lambda: PowerOfTwo(3, clipping=KLClipping()), r"power_of_two: clipping \(kl assumes equally spaced levels\)"),
    ],
)
def test_refusals(make, text):
    with pytest.raises(PlanError, match=text):
        make()


@pytest.mark.parametrize("tail", ["normal", "heavy", "sparse", "tiny"])
@pytest.mark.parametrize("rows", [(1, 5), (16, 27), (8, 900)])
def test_the_search_that_ends_early_finds_what_all_candidates_find(tail, rows):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(rows, generator=draw)
    x = {"normal": x, "heavy": x**5, "sparse": x * (x > 1.5), "tiny": x * 1e-20}[tail]
    for bits in (2, 4, 8):
        levels = 2 ** (bits - 1) - 1
        looked = []

        def fake_quantize(values, limit, levels=levels, looked=looked):
            looked.append(limit)
            scale = torch.where(limit > 0, limit / levels, 1.0)
            return (values / scale).round().clamp(-levels, levels) * scale

        found = MSEClipping().find_limit(x, fake_quantize, magnitudes=levels + 1)
        widest = x.abs().amax(dim=1, keepdim=True)
        candidates = [widest * (k / 100) for k in range(100, 0, -1)]
        errors = torch.stack([(fake_quantize(x, c) - x).square().sum(dim=1) for c in candidates])
        expected = torch.stack(candidates)[..., 0].gather(0, errors.argmin(0)[None])[0]
        assert torch.equal(found, expected)
        if tail == "normal" and bits == 8 and rows[1] > 100:
            assert len(looked) - 100 < 80  # of 100 candidates, with two more looks for each fourth one

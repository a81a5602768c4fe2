"""The three grids against brute force, and gradients against fake quantization written in real units."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.law.errors import DataError, PlanError
from spikequant.quantizers import FixedClipping, MSEClipping, Uniform
from spikequant.quantizers.uniform import GRIDS

CASES = [
    (bits, grid, signed)
    for bits in (1, 2, 3, 4, 5, 6, 7, 8)
    for grid in GRIDS
    for signed in (True, False)
    if (signed or grid != "symmetric") and not (bits == 1 and signed and grid == "zero_preserving")
]


def real_levels(bits, grid, signed, c):
    """The levels in the units of x, from the equations of the papers."""
    if not signed:
        return np.arange(2**bits) * c / (2**bits - 1)
    if grid == "symmetric":
        return np.linspace(-c, c, 2**bits)
    if grid == "zero_preserving":
        top = 2 ** (bits - 1) - 1
        return np.arange(-top, top + 1) * c / top
    return np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) * 2 * c / (2**bits - 1)


@pytest.mark.parametrize(("bits", "grid", "signed"), CASES)
def test_codes_are_the_nearest_level(bits, grid, signed):
    c = 1.7
    q = Uniform(bits, grid=grid, signed=signed, clipping=FixedClipping(c))
    x = torch.linspace(-2.5, 2.5, 4003, dtype=torch.float64)
    scale = q.fit(x)
    levels = real_levels(bits, grid, signed, c)
    assert np.allclose(np.array(q.levels) * scale.item(), levels, atol=1e-12)
    nearest = np.abs(x.numpy()[:, None] - levels).argmin(axis=1)
    distance = np.sort(np.abs(x.numpy()[:, None] - levels), axis=1)
    clear = distance[:, 1] - distance[:, 0] > 1e-9
    codes = q.codes(x, scale).numpy()
    assert clear.sum() > 3900
    assert np.array_equal(codes[clear], np.array(q.levels)[nearest][clear])
    assert set(codes) == set(q.levels)


@pytest.mark.parametrize(("bits", "grid", "signed"), CASES)
@pytest.mark.parametrize("rounding", ["floor", "toward_zero", "half_up", "half_even", "stochastic"])
def test_every_level_is_its_own_code_at_any_scale(bits, grid, signed, rounding):
    q = Uniform(bits, grid=grid, signed=signed, rounding=rounding)
    levels = torch.tensor(q.levels, dtype=torch.float32)
    scales = torch.rand(200, 1, generator=torch.Generator().manual_seed(1)) + 1e-3
    noise = torch.full((200, len(levels)), 0.999)
    assert torch.equal(q.codes(levels * scales, scales, noise=noise), levels.expand(200, -1))


@pytest.mark.parametrize("bits", [9, 12, 16])
@pytest.mark.parametrize("rounding", ["floor", "half_even"])
def test_wide_codes_return(bits, rounding):
    q = Uniform(bits, rounding=rounding)
    levels = torch.tensor(q.levels, dtype=torch.float32)
    scale = torch.tensor(0.37)
    assert torch.equal(q.codes(levels * scale, scale), levels)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), st.integers(2, 16))
def test_the_largest_magnitude_is_the_last_level_and_not_clipped(values, bits):
    x = torch.tensor(values)
    for q in (Uniform(bits), Uniform(bits, grid="symmetric"), Uniform(bits, rounding="floor")):
        scale = q.fit(x)
        assert (x / scale).abs().max() <= q.code_format.max
        if x.any() and x.abs().max() > 1e-30:
            assert q.codes(x.abs(), scale).max() == q.code_format.max


def reference(x, delta, low, high, *, shift=0.0):
    """Fake quantization in real units: delta (round(clip(x) / delta - shift) + shift)."""
    clipped = torch.minimum(torch.maximum(x, low * delta), high * delta)
    units = clipped / delta - shift
    return delta * (units + (units.round() - units).detach() + shift)


@pytest.mark.parametrize(("bits", "grid", "signed"), CASES)
def test_gradients_equal_fake_quantization_in_real_units(bits, grid, signed):
    q = Uniform(bits, grid=grid, signed=signed, scale_mode="learned")
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(7, 40, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 40, generator=generator, dtype=torch.float64)
    scale = (0.6 * q.fit(x, channel_axis=0)).requires_grad_()
    ours = q.codes(x, scale) * scale
    shift, step = (0.5, 2) if grid == "symmetric" else (0.0, 1)
    theirs = reference(x, step * scale, q.levels[0] / step, q.levels[-1] / step, shift=shift)
    for mine, expected in zip(
        (ours, *torch.autograd.grad((ours * weight).sum(), (x, scale))),
        (theirs, *torch.autograd.grad((theirs * weight).sum(), (x, scale))),
        strict=True,
    ):
        assert torch.allclose(mine, expected, rtol=0, atol=1e-6)
    clipped = (x / scale < q.levels[0]) | (x / scale > q.levels[-1])
    assert clipped.any()
    assert not clipped.all()


def test_two_bits_show_how_much_the_grid_matters():
    x = torch.tensor([-1.0, -0.4, 0.1, 1.0])
    values = {grid: (q := Uniform(2, grid=grid)).codes(x, q.fit(x)) * q.fit(x) for grid in GRIDS}
    assert values["zero_preserving"].tolist() == [-1.0, 0.0, 0.0, 1.0]
    assert torch.allclose(values["symmetric"], torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0]))
    assert torch.allclose(values["full_range"], torch.tensor([-4 / 3, -2 / 3, 0.0, 2 / 3]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_every_code(dtype):
    q = Uniform(12)
    x = torch.linspace(-1, 1, 5001).to(dtype)
    codes = q.codes(x, q.fit(x))
    assert codes.dtype == torch.float32
    assert torch.equal(codes, q.codes(x.float(), q.fit(x.float())))


def test_all_zero_channel_has_scale_one_and_tiny_ones_do_not_vanish():
    x = torch.tensor([[0.0, 0.0], [1e-45, 0.0], [0.0, -3e38]])
    scale = Uniform(8).fit(x, channel_axis=0)
    assert scale[0].item() == 1
    assert (scale > 0).all()
    assert Uniform(2).fit(x[1]) == torch.finfo(torch.float32).tiny
    assert Uniform(8).codes(x, scale).isfinite().all()


def test_mode_follows_the_clipping():
    assert Uniform(4).scale_mode == "dynamic"
    assert Uniform(4, clipping=MSEClipping()).scale_mode == "fixed"
    assert Uniform(4, clipping=MSEClipping(), scale_mode="dynamic").scale_mode == "dynamic"


def test_learned_scale_stays_positive_and_can_return():
    q = Uniform(4, scale_mode="learned")
    scale = torch.tensor(-0.1, requires_grad=True)
    used = q.graph_scale(scale, torch.ones(3))
    assert used > 0
    assert torch.autograd.grad(used, scale)[0] == 1


def test_stochastic_search_draws_nothing():
    q = Uniform(3, rounding="stochastic", clipping=MSEClipping(20))
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(q.fit(x), Uniform(3, clipping=MSEClipping(20)).fit(x))
    with pytest.raises(DataError, match="needs its noise"):
        q.codes(x, q.fit(x))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bits": 17}, "uniform: bits is 17; expected an integer from 1 to 16"),
        ({"bits": "4"}, "uniform: bits is '4'; expected an integer from 1 to 16"),
        ({"bits": True}, "uniform: bits is True; expected an integer from 1 to 16"),
        ({"bits": 1}, r"1 signed bit on the zero-preserving grid holds only 0; use Binary\(\)"),
        ({"bits": 4, "grid": "odd"}, "uniform: grid is 'odd'; expected one of 'zero_preserving', 'symmetric'"),
        (
            {"bits": 4, "grid": "symmetric", "signed": False},
            "the symmetric grid has a sign; use grid='zero_preserving'",
        ),
        ({"bits": 4, "rounding": "TR"}, "uniform: rounding is 'TR'; expected one of 'floor'"),
        ({"bits": 4, "scale_mode": "often"}, "uniform: scale_mode is 'often'; expected one of 'fixed'"),
        ({"bits": 4, "clipping": "max"}, "uniform: clipping is 'max'; expected an instance of MaxClipping"),
        ({"bits": 4, "signed": "no"}, "uniform: signed is 'no'; expected one of True, False"),
    ],
)
def test_refusals(arguments, text):
    with pytest.raises(PlanError, match=text):
        Uniform(**arguments)


def test_data_that_no_scale_fits():
    x = torch.tensor([[1.0, torch.nan], [torch.inf, torch.nan]])
    with pytest.raises(DataError, match=r"shape \(2, 2\) with 2 NaN and 1 infinite values; find the layer or batch"):
        Uniform(4).fit(x)
    with pytest.raises(DataError, match=r"empty tensor of shape \(0, 3\)"):
        Uniform(4).fit(torch.zeros(0, 3))
    with pytest.raises(DataError, match=r"channel_axis 2 was asked of a tensor of shape \(2, 3\); expected -2 to 1"):
        Uniform(4).fit(torch.zeros(2, 3), channel_axis=2)


@settings(max_examples=30)
@given(st.integers(0, 3), st.sampled_from(CASES))
def test_any_channel_axis(axis, case):
    bits, grid, signed = case
    q = Uniform(bits, grid=grid, signed=signed)
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(axis))
    scale = q.fit(x, channel_axis=axis)
    assert torch.equal(scale, q.fit(x, channel_axis=axis - 4))
    for index in range(x.shape[axis]):
        assert scale.reshape(-1)[index] == q.fit(x.select(axis, index))

"""LQ-Net: the least squares against a plain reference, the moving average, levels as integers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.law.errors import DataError, PlanError
from spikequant.quantizers import LQNet, MSEClipping, Uniform
from spikequant.quantizers.qem import Rows, one_pass, signs


def weights(channels=6, values=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, values, generator=generator) * torch.logspace(-2, 1, channels)[:, None]


def plain_pass(w, basis, ridge):
    """Algorithm 1 of the paper for one channel, value by value."""
    table = signs(len(basis), basis)
    levels = table @ basis
    nearest = table[(w[:, None] - levels).abs().argmin(1)]
    gram = nearest.T @ nearest + ridge * torch.eye(len(basis), dtype=basis.dtype)
    return torch.linalg.solve(gram, nearest.T @ w + ridge * basis)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_a_pass_is_the_papers(bits):
    w = weights().double()
    basis = w.abs().mean(1, keepdim=True) * torch.rand(6, bits, generator=torch.Generator().manual_seed(1)).double()
    found, error = one_pass(Rows.of(w), basis, ridge=1e-4)
    for channel in range(6):
        expected = plain_pass(w[channel], basis[channel], 1e-4)
        assert torch.allclose(found[channel], expected, rtol=1e-6, atol=1e-9)
    assert error.shape == (6,)


def test_a_training_step_is_the_moving_average():
    w, q = weights(1).double(), LQNet(2)
    state = torch.tensor([[0.005, 0.012]], dtype=torch.float64)
    expected = 0.9 * state[0] + 0.1 * plain_pass(w[0], state[0], 1e-4)
    scale = torch.ones(1, 1, dtype=torch.float64)
    q.learn_(w, scale, {"basis": state})
    assert torch.allclose(state[0], expected, rtol=1e-6)
    assert float(scale) == pytest.approx(float(state.sum()) / (127 - 1))


def test_many_steps_find_what_the_fit_finds():
    w, q = weights(), LQNet(2)
    fitted = q.start(w, channel_axis=0)["basis"]
    state, scale = {"basis": 1.3 * fitted}, q.fit(w, channel_axis=0)
    for _ in range(300):
        q.learn_(w, scale, state)
    assert torch.allclose(state["basis"], fitted, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_error_is_no_larger_than_that_of_equal_steps(bits):
    w = weights(16, 576, seed=bits)
    lq, uniform = LQNet(bits), Uniform(bits, grid="symmetric", clipping=MSEClipping())
    errors = []
    for q in (lq, uniform):
        scale = q.fit(w, channel_axis=0)
        errors.append(((q.codes(w, scale) * scale - w) ** 2).sum(1))
    assert errors[0].sum() < errors[1].sum()
    assert bool((errors[0] <= 1.01 * errors[1]).all())  # a sixteenth of a step of rounding to integers


def test_near_the_best_two_bits_of_a_normal_distribution():
    """Max 1960, table I: distortion 0.1175 at 4 levels, whose optimum is symmetric and so a basis of two numbers."""
    x = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(20001) + 0.5) / 20001)
    q = LQNet(2)
    scale = q.fit(x)
    assert float(((q.codes(x, scale) * scale - x) ** 2).mean()) == pytest.approx(0.1175, rel=5e-3)
    assert q.start(x)["basis"][0].tolist() == pytest.approx([(1.510 - 0.4528) / 2, (1.510 + 0.4528) / 2], rel=0.02)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_codes_are_signed_sums_of_the_codebook(bits, seed, size):
    w, q = size * weights(3, 40, seed), LQNet(bits)
    state, scale = q.start(w, channel_axis=0), q.fit(w, channel_axis=0)
    book = q.codebook(scale, state)
    codes = q.state_codes(w, scale, state, soft=False)
    levels = book @ signs(bits, book).T
    assert book.shape == (3, bits)
    assert bool((book == book.round()).all())
    assert float(levels.max()) <= q.code_format.max
    for channel in range(3):
        assert bool(torch.isin(codes[channel], levels[channel]).all())
        nearest = (w[channel, :, None] / scale[channel] - levels[channel]).abs().amin(1)
        assert torch.allclose((codes[channel] - w[channel] / scale[channel]).abs(), nearest, rtol=1e-3, atol=1e-3)


def test_a_channel_of_zeros_gets_a_basis_with_its_first_weights():
    q, w = LQNet(2), torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    w[1] = 0
    scale, state = q.fit(w, channel_axis=0), q.start(w, channel_axis=0)
    w[1] = 0.01 * w[0]
    q.learn_(w, scale, state)
    alone = q.start(w[1:2], channel_axis=0)["basis"]
    assert torch.allclose(state["basis"][1:2], alone)
    assert torch.allclose(scale[1:2], q.fit(w[1:2], channel_axis=0))


def test_zeros_constants_and_two_values():
    q = LQNet(2)
    none = q.fit(torch.zeros(2, 5), channel_axis=0).flatten()
    assert torch.allclose(none * (q.code_format.max - 1), torch.ones(2))  # as if the outermost level were 1
    assert not q.codes(torch.zeros(2, 5), torch.ones(2, 1)).any()
    for x in (torch.full((1, 7), 3.0), torch.tensor([[-2.0, 2.0, 2.0]]), torch.tensor([[5.0]])):
        scale = q.fit(x, channel_axis=0)
        assert torch.allclose(q.codes(x, scale) * scale, x, rtol=0.02)


def test_two_values_of_one_tensor_and_a_channel_alone():
    x, q = weights(4), LQNet(3)
    scale = q.fit(x.T, channel_axis=1)
    assert scale.shape == (1, 4)
    assert torch.equal(q.codes(x.T, scale).T, q.codes(x, scale.T))


def test_gradients_pass_everywhere():
    x = torch.linspace(-9, 9, 50, requires_grad=True)
    q = LQNet(2)
    scale = q.fit(x)
    (dx,) = torch.autograd.grad((q.codes(x, scale) * scale).sum(), x)
    assert torch.allclose(dx, torch.ones_like(dx))


@pytest.mark.parametrize(
    "options",
    [{"bits": 0}, {"bits": 9}, {"bits": 2, "level_bits": 3}, {"bits": 2, "level_bits": 17}, {"bits": 2, "momentum": 1},
     {"bits": 2, "ridge": 0}, {"bits": 2, "ridge": math.nan}, {"bits": 2, "passes": 0}, {"bits": True}],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(PlanError, match="lqnet"):
        LQNet(**options)


def test_bad_tensors_are_refused():
    for bad in (torch.empty(0), torch.tensor([1.0, math.nan])):
        with pytest.raises(DataError):
            LQNet(2).start(bad)

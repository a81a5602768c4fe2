"""The sum of sigmoids: its function and gradients are the published equations, its hard form is integers."""

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import spikequant as sq
from spikequant.law.errors import DataError, PlanError, WidthError
from spikequant.nn import advance_schedules
from spikequant.quantizers import SigmoidSum, quantizer_from_dict
from spikequant.quantizers.one_dimension import boundaries_of_clusters


def weights(shape=(5, 40), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def started(q, x, temperature=1.0, axis=None):
    state = q.start(x, channel_axis=axis)
    state["temperature"].fill_(temperature)
    state["beta"].requires_grad_()
    return q.fit(x, channel_axis=axis).requires_grad_(), state


def published(x, alpha, state, levels, limit):
    """Q(x) and sum_i s_i g_i (1 - g_i), by the equations; levels symmetric about 0."""
    heights = [high - low for low, high in itertools.pairwise(levels)]
    total, slope = torch.zeros_like(x), torch.zeros_like(x)
    for height, bound in zip(heights, state["bounds"], strict=True):
        g = 1 / (1 + torch.exp(-(state["temperature"] * (state["beta"] * x - bound)).clamp(-limit, limit)))
        total, slope = total + height * g, slope + height * g * (1 - g)
    return alpha * (total - sum(heights) / 2), slope


@pytest.mark.parametrize("q", [SigmoidSum(1), SigmoidSum(2), SigmoidSum(5)])
def test_a_scale_stays_near_the_weights(q):
    x, outer = weights(), q.level_set[-1]
    scale, state = started(q, x, axis=0)
    mean = x.abs().mean(1, keepdim=True)
    wild = torch.tensor([-1.0, 0.0, 1e-9, 1e9, 1.0], dtype=torch.float64).reshape(-1, 1).requires_grad_()
    seen = q.graph_scale(wild, x)
    assert bool((seen * outer <= 1024 * mean * 1.001).all())
    assert bool((seen * outer >= mean / 1024 * 0.999).all())
    assert float(seen.detach()[4]) == 1.0
    assert torch.autograd.grad(seen.sum(), wild)[0].tolist() == [[1.0]] * 5
    moved = wild.detach().clone()
    q.learn_(x, moved, state)
    assert torch.equal(moved, seen.detach())
    version = scale._version
    q.learn_(x, scale.detach(), state)
    assert scale._version == version  # inside its bounds nothing is written


def test_a_step_beyond_zero_leaves_a_layer_that_runs():
    net = torch.nn.Sequential(torch.nn.Linear(9, 12), sq.nn.LIF(threshold=0.3))
    x = (torch.rand(6, 8, 9) < 0.4).float()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=2, weight_quantizer="sigmoid_sum", membrane_bits=8), x, quiet=True)
    with torch.no_grad():
        net[0].weight_scale.fill_(-0.5)
    for mode in (False, True):  # evaluated it is only read; in training it is put back
        sq.reset(net)
        assert bool(torch.isfinite(net.train(mode)(x)).all())
        assert bool((net[0].weight_scale > 0).all()) is mode


def test_widths_that_do_not_fit_name_the_layer():
    net = torch.nn.Sequential(torch.nn.Linear(9, 12), sq.nn.LIF(threshold=0.3))
    x = (torch.rand(6, 8, 9) < 0.4).float()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=2, membrane_bits=8), x, quiet=True)
    net[0].weight_scale.fill_(2.0**-60)
    with pytest.raises(WidthError, match="^1: an intermediate needs"):
        net.train()(x)


@pytest.mark.parametrize("temperature", [1.0, 20.0, 700.0])
@pytest.mark.parametrize("q", [SigmoidSum(2), SigmoidSum(3), SigmoidSum(3, level_set=(-2, -1, 0, 1, 2)), SigmoidSum(5)])
def test_function_and_gradients_are_the_equations(q, temperature):
    x = weights().requires_grad_()
    alpha, state = started(q, x.detach(), temperature)
    beta, t = state["beta"], state["temperature"]
    value = alpha * q.state_codes(x, alpha, state, soft=True)
    expected, slope = published(x, alpha, state, q.levels, q.argument_limit)
    torch.testing.assert_close(value, expected)
    dx, dbeta, dalpha = torch.autograd.grad(value.sum(), [x, beta, alpha])
    torch.testing.assert_close(dx, alpha * beta * t * slope)
    torch.testing.assert_close(dbeta, (alpha * t * x * slope).sum())
    torch.testing.assert_close(dalpha, (expected / alpha).sum())
    assert bool((dx > 0).all())


def test_binary_takes_its_slope_at_temperature_one():
    q, x = SigmoidSum(1), weights().requires_grad_()
    alpha, state = started(q, x.detach(), 500.0)
    (wide,) = torch.autograd.grad(q.state_codes(x, alpha, state, soft=True).sum(), x)
    g = torch.sigmoid(state["beta"] * x)
    torch.testing.assert_close(wide, state["beta"] * 500 * 2 * g * (1 - g))
    (steep,) = torch.autograd.grad(SigmoidSum(1, gradient="steep").state_codes(x, alpha, state, soft=True).sum(), x)
    assert float(steep.median()) < 0.1 * float(wide.median())


def test_binary_is_the_sign_and_its_boundary_is_zero():
    x = weights() + 0.3
    q = SigmoidSum(1)
    state = q.start(x, channel_axis=0)
    assert not state["bounds"].any()
    codes = q.state_codes(x, q.fit(x, channel_axis=0), state, soft=False)
    assert torch.equal(codes, torch.where(x >= 0, 1.0, -1.0).to(x))
    torch.testing.assert_close(q.fit(x, channel_axis=0)[:, 0], x.abs().mean(1))  # least squares of a sign


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8, unique=True), st.integers(0, 50))
def test_soft_becomes_hard_where_no_value_is_at_a_boundary(levels, seed):
    levels = sorted(levels)
    q = SigmoidSum((len(levels) - 1).bit_length(), level_set=tuple(levels), argument_limit=60.0)
    x = weights((40,), seed)
    scale, state = q.fit(x), q.start(x)
    state["temperature"].fill_(1e6)
    away = ((state["beta"] * x - state["bounds"][:, None]).abs() > 1e-3).all(0)
    soft, hard = (q.state_codes(x, scale, state, soft=soft) for soft in (True, False))
    torch.testing.assert_close(soft[away], hard[away], atol=1e-6, rtol=0)
    assert set(hard.tolist()) <= set(levels)


def test_temperature_follows_its_schedule():
    q, state = SigmoidSum(2), SigmoidSum(2).start(weights())
    seen = []
    for epoch in (0, 0.9, 1, 34, 99, 500):
        q.progress_(state, epoch, 600)
        seen.append(float(state["temperature"]))
    assert seen == [20, 20, 40, 700, 2000, 2000]
    q = SigmoidSum(2, schedule="to_cap")
    q.progress_(state, 0, 2)
    first = float(state["temperature"])
    q.progress_(state, 1, 2)
    assert (first, float(state["temperature"])) == (20, pytest.approx(200))


def test_starts():
    x = weights((4, 200))
    levels = torch.tensor(SigmoidSum(3).levels)

    def error(q):
        scale, state = q.fit(x, channel_axis=0), q.start(x, channel_axis=0)
        return float((q.state_codes(x, scale, state, soft=False) * scale - x).square().mean())

    published = SigmoidSum(3, start_from="inverse_beta")
    torch.testing.assert_close(
        published.fit(x, channel_axis=0), x.abs().amax(1, keepdim=True) / (1.25 * float(levels.max()))
    )
    assert error(SigmoidSum(3)) < error(published)
    assert error(SigmoidSum(8)) < 1e-4


def test_clusters_of_few_or_equal_values():
    rows = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1e-20, 5.0, -3.0]])
    bounds = boundaries_of_clusters(rows, 15)
    assert bool(torch.isfinite(bounds).all())
    assert bool((bounds.diff(dim=1) >= 0).all())
    assert torch.equal(bounds, -bounds.flip(1))
    zeros = torch.zeros(3, 4)
    q = SigmoidSum(2)
    assert not q.state_codes(zeros, q.fit(zeros), q.start(zeros), soft=False).any()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bits": 9}, "from 1 to 8"),
        ({"bits": 2, "level_set": [1, 0]}, "ascending"),
        ({"bits": 2, "level_set": [-1, 0, 1.5]}, "integers"),
        ({"bits": 2, "level_set": 3}, "list of integers"),
        ({"bits": 2, "level_set": [-2, -1, 0, 1, 2]}, "5 levels need 3 bits, 2 were given"),
        ({"bits": 2, "level_set": [0, 1, 2], "start_from": "k_means"}, "symmetric"),
        ({"bits": 2, "level_set": [0, 99999]}, "at most"),
        ({"bits": 2, "temperature_step": 0}, "temperature_step is 0"),
        ({"bits": 2, "temperature_cap": 10}, "below the temperature step"),
        ({"bits": 2, "schedule": "cosine"}, "schedule is 'cosine'"),
    ],
)
def test_refusals(fields, words):
    with pytest.raises(PlanError, match=words):
        quantizer_from_dict({"name": "sigmoid_sum", **fields})


def test_refuses_nan():
    with pytest.raises(DataError, match="1 NaN"):
        SigmoidSum(2).start(torch.tensor([1.0, torch.nan]))


def prepared(digits, **role):
    model, train, test = copy.deepcopy(digits[0]), *digits[1:]
    role = {"quantizer": "sigmoid_sum", **role}
    plan = sq.Plan.from_dict({"rules": [{"match": "*", "weight": role, "membrane": {"bits": 8}}]})
    sq.quantize_(model, plan, next(iter(test))[0], quiet=True)
    sq.calibrate(model, train, max_batches=2)
    return model, train, test


@pytest.mark.parametrize("role", [{"bits": 1}, {"bits": 3, "per_channel": False}])
def test_trains_freezes_and_verifies(digits, role, tmp_path):
    model, train, test = prepared(digits, **role)
    layers = [m for m in model.modules() if isinstance(m, sq.nn.Synapse)]
    slopes = [m.weight_beta.detach().clone() for m in layers]
    sq.fit(model, train, epochs=2, lr=2e-3, quiet=True)
    assert [float(m.weight_temperature) for m in layers] == [40.0] * len(layers)
    assert all(not torch.equal(m.weight_beta, before) for m, before in zip(layers, slopes, strict=True))
    before = sq.evaluate(model, test)
    assert before.accuracy > 0.75
    x = next(iter(test))[0]
    sq.freeze(model)
    assert torch.equal(sq.evaluate(model, test).predictions, before.predictions)
    net = sq.lower(model, x)
    found = sq.verify(model, net, x)
    assert found.differences == 0
    assert found.spikes > 0
    sq.export(net, tmp_path, format="c99")


def test_training_is_soft_and_evaluation_hard(digits):
    model, _, test = prepared(digits, bits=2)
    layer = next(m for m in model.modules() if isinstance(m, sq.nn.Synapse))
    model.train()
    soft = layer.codes().detach()
    model.eval()
    hard = layer.codes().detach()
    assert not layer.is_soft
    assert set(hard.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert len(soft.unique()) > 3
    model.train()
    model(next(iter(test))[0]).square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    assert layer.weight_beta.grad.abs().sum() > 0


def test_schedules_by_hand(digits):
    model = prepared(digits, bits=2)[0]
    advance_schedules(model, 4, 10)
    found = {float(m.weight_temperature) for m in model.modules() if isinstance(m, sq.nn.Synapse)}
    assert found == {100.0}
    with pytest.raises(DataError, match="expected at least 0 of at least 1"):
        advance_schedules(model, -1, 10)


def test_state_travels(digits, tmp_path):
    model, train, test = prepared(digits, bits=2)
    sq.fit(model, train, epochs=1, lr=2e-3, quiet=True)
    sq.save_prepared(model, tmp_path / "model.safetensors")
    again = sq.load_prepared(copy.deepcopy(digits[0]), tmp_path / "model.safetensors")
    twin = copy.deepcopy(model)
    for other in (again, twin):
        assert torch.equal(sq.evaluate(other, test).predictions, sq.evaluate(model, test).predictions)
        assert {float(m.weight_temperature) for m in other.modules() if isinstance(m, sq.nn.Synapse)} == {20.0}


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_channel_with_one_weight_keeps_the_scale_that_was_fitted(bits):
    weight = torch.zeros(2, 5000)
    weight[0, 0], weight[1, :2500] = 1.0, 1.0
    quantizer = SigmoidSum(bits)
    scale = quantizer.fit(weight, channel_axis=0)
    assert torch.equal(quantizer.graph_scale(scale, weight), scale)
    total = quantizer.fit(weight)
    assert torch.equal(quantizer.graph_scale(total, weight), total)

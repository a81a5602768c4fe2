"""Encoders, step modes, copies, the cache of the codes, and what a state_dict carries."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.law.errors import DataError, NotFrozen, Unsupported
from spikequant.law.noise import noise_words, step_key
from spikequant.law.rounding import ROUNDINGS
from spikequant.nn import (
    IF,
    LIF,
    AdaptiveLIF,
    CubaLIF,
    LatencyEncoder,
    LeakyIntegrator,
    MultiSpikeIF,
    Neuron,
    PoissonEncoder,
    SingleState,
    coded_weight,
)  # fmt: skip

STEPS, BATCH = 9, 3


def spikes(*shape, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


# -- encoders ---------------------------------------------------------------------------


def test_poisson_spikes_follow_the_numpy_recipe():
    x = torch.rand(4, 2, 3)
    encoder = PoissonEncoder(40, seed=11)
    encoder.first_sample = 5
    train = encoder(x)
    for t in range(40):
        words = noise_words(step_key(11, 0xE0C0DE, "v", t), np.arange(5, 9), (2, 3))
        assert np.array_equal(train[t].numpy(), (words < x.double().numpy() * 2.0**32).astype(np.float32))
    assert torch.equal(encoder(x), train)
    assert abs(float(PoissonEncoder(400)(torch.full((5, 50), 0.3)).mean()) - 0.3) < 0.01


def test_poisson_extremes():
    train = PoissonEncoder(20)(torch.tensor([[0.0, 1.0]]))
    assert train.sum((0, 1)).tolist() == [0.0, 20.0]


def test_latency_spikes_once_and_earlier_where_brighter():
    train = LatencyEncoder(5)(torch.tensor([[1.0, 0.75, 0.5, 0.01, 0.0]]))
    assert train[:, 0].argmax(0).tolist()[:4] == [0, 1, 2, 4]
    assert train.sum(0).tolist() == [[1, 1, 1, 1, 0]]


@pytest.mark.parametrize("encoder", [PoissonEncoder(3), LatencyEncoder(3)])
@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_encoders_take_numbers_from_0_to_1(encoder, bad):
    with pytest.raises(DataError, match=r"Encoder: expected values in \[0, 1\], got .*; scale the data first"):
        encoder(torch.tensor([[0.5, bad]]))


# -- real and quantized neurons ------------------------------------------------------------

NEURONS = {
    "lif": lambda **o: LIF(leak=0.75, **o),
    "lif last": lambda **o: LIF(leak=0.9, order="leak_last", reset="subtract", **o),
    "lif delayed": lambda **o: LIF(leak=0.9, order="delayed_reset", reset="subtract", **o),
    "if": lambda **o: IF(**o),
    "cuba": lambda **o: CubaLIF(leak=0.5, leak_i=0.75, **o),
    "single": lambda **o: SingleState(**o),
    "adaptive": lambda **o: AdaptiveLIF(leak=0.9, leak_a=0.99, adapt=0.2, refractory=2, **o),
    "multi": lambda **o: MultiSpikeIF(spikes_max=3, **o),
    "integrator": lambda **o: LeakyIntegrator(leak=0.9, **o),
}


def layer(name, rounding="toward_zero", seed=0):
    """One quantized layer of a kind."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 5), NEURONS[name]())
    with torch.no_grad():
        net[0].weight.normal_(0.15, 0.4)
    sq.quantize_(
        net,
        sq.Plan.uniform(weight_bits=4, membrane_bits=6, membrane_rounding=rounding),
        spikes(STEPS, BATCH, 8),
        quiet=True,
    )
    return net


def by_hand(net, x):
    """The same network in single-step mode, stepped by the caller."""
    for module in net.modules():
        if hasattr(module, "step_mode"):
            module.step_mode = "s"
    sq.reset(net)
    out = torch.stack([net(xt) for xt in x])
    sq.reset(net)
    for module in net.modules():
        if hasattr(module, "step_mode"):
            module.step_mode = "m"
    return out


@pytest.mark.parametrize("rounding", ["half_up", "stochastic"])
@pytest.mark.parametrize("name", NEURONS)
def test_single_step_equals_multi_step(name, rounding):
    net, x = layer(name, rounding), spikes(STEPS, BATCH, 8)
    whole = net(x)
    assert whole.abs().sum() > 0
    assert torch.equal(by_hand(net, x), whole)
    assert torch.equal(net(x), whole)


@pytest.mark.parametrize("name", NEURONS)
def test_real_neurons_single_step_equals_multi_step(name):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(8, 5), NEURONS[name]()), spikes(STEPS, BATCH, 8)
    with torch.no_grad():
        net[0].weight.normal_(0.15, 0.4)
        assert torch.equal(by_hand(net, x), net(x))


def test_reset_forgets_and_a_new_batch_size_asks_for_it():
    net, x = layer("lif"), spikes(STEPS, BATCH, 8)
    net[1].step_mode = "s"
    first = net(x[0])
    net(x[1])
    sq.reset(net)
    assert torch.equal(net(x[0]), first)
    with pytest.raises(
        DataError,
        match=r"a neuron layer holds a state of shape \(3, 5\) and was given \(2, 5\); call spikequant.reset",
    ):
        net(x[0, :2])


def test_wrong_shapes_and_modes_are_refused():
    with pytest.raises(Unsupported, match=r"step_mode 'x'; expected 'm' \(multi-step, \[T, N, ...\]\) or 's'"):
        LIF(step_mode="x")
    with pytest.raises(Unsupported, match="neuron: unknown value 'tau'; expected some of threshold, .*leak"):
        Neuron(LIF().spec, {"tau": 2.0})
    with pytest.raises(Unsupported, match="LIF order 'middle'; expected leak_first, leak_last or delayed_reset"):
        LIF(order="middle")
    with pytest.raises(DataError, match=r"a neuron layer in step_mode 'm' takes \[T, N, ...\], got \(4, 3\)"):
        LIF()(torch.zeros(4, 3))
    with pytest.raises(DataError, match=r"step_mode 'm' takes \[T, N, ...\], got \(3, 5\)"):
        layer("lif")[1](torch.zeros(3, 5))


# -- copies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("real", [True, False])
def test_models_deep_copy_after_a_forward(mode, real):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 6),
        nn.BatchNorm1d(6),
        LIF(step_mode="s"),
        nn.Linear(6, 4),
        LIF(order="delayed_reset", step_mode="s"),
    )
    if not real:
        sq.quantize_(
            net, sq.Plan.uniform(weight_bits=4, weight_quantizer="lsq", membrane_bits=6), spikes(BATCH, 8), quiet=True
        )
    net.train()
    x = spikes(BATCH, 8)
    if mode == "m":
        net = nn.Sequential(net[0], net[2])
        for module in (net[1],):
            module.step_mode = "m"
        x = spikes(STEPS, BATCH, 8)
    out = net(x)
    assert out.requires_grad
    twin = copy.deepcopy(net)
    sq.reset(net), sq.reset(twin)
    assert torch.equal(twin(x), net(x))
    assert all(p is not q for p, q in zip(net.parameters(), twin.parameters(), strict=True))
    if not real:
        assert twin[0].link.branch.synapse is twin[0]
        assert twin[0].link.branch.neuron is twin[-1 if mode == "m" else 2]
        assert twin[0].link.branch.neuron is not net[0].link.branch.neuron


def test_training_a_copy_leaves_the_first_alone():
    net, x = layer("lif"), spikes(STEPS, BATCH, 8)
    before = net(x).detach().clone()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin[0].weight.mul_(-1)
    twin(x)
    assert torch.equal(net(x), before)


# -- codes once per version of the parameters --------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """How often weights were encoded."""
    calls = []

    def counting(real):
        def encoded(*args, **options):
            made = real(*args, **options)
            if made is not None:
                calls.append(args)
            return made

        return encoded

    for name in ("encoded", "fitted_and_encoded"):
        monkeypatch.setattr(coded_weight, name, counting(getattr(coded_weight, name)))
    return calls


class Loop(nn.Module):
    """The user's own loop."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1, self.fc2, self.lif2 = (
            nn.Linear(8, 6),
            LIF(step_mode="s"),
            nn.Linear(6, 3),
            LIF(step_mode="s"),
        )

    def forward(self, x):
        return torch.stack([self.lif2(self.fc2(self.lif1(self.fc1(xt)))) for xt in x]).mean(0)


@pytest.mark.parametrize("clipping", ["mse", "max"])
def test_codes_are_computed_once_per_parameter_version(counted, clipping):
    torch.manual_seed(0)
    net, x = Loop(), spikes(STEPS, BATCH, 8)
    with torch.no_grad():
        net.fc1.weight.abs_()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4, weight_clipping=clipping, membrane_bits=8), x, quiet=True)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(x)
    for _ in range(3):
        counted.clear()
        sq.reset(net)
        net(x).sum().backward()
        assert len(counted) <= 2  # two layers, nine steps
        optimizer.step()
        counted.clear()
        sq.reset(net)
        net(x)
        assert len(counted) == 2  # the weights changed
    with torch.no_grad():
        net(x)
        counted.clear()
        sq.reset(net)
        net(x)
        assert not counted


def test_gradients_accumulate_over_two_backward_passes():
    net, xs = layer("lif"), [spikes(STEPS, BATCH, 8, seed=k) for k in (1, 2)]
    for x in xs:
        net(x).sum().backward()
    both = net[0].weight.grad.clone()
    single = []
    for x in xs:
        net.zero_grad()
        net(x).sum().backward()
        single.append(net[0].weight.grad.clone())
    assert single[0].abs().sum() > 0
    torch.testing.assert_close(both, single[0] + single[1])
    net.zero_grad()
    (net(xs[0]).sum() + net(xs[1]).sum()).backward()
    torch.testing.assert_close(net[0].weight.grad, both)


def test_changed_weights_change_the_codes():
    net, x = layer("lif"), spikes(STEPS, BATCH, 8)
    before = net(x)
    with torch.no_grad():
        net[0].weight.neg_()
    assert not torch.equal(net(x), before)


# -- state_dict ---------------------------------------------------------------------------------


def test_state_dict_carries_scales_limits_and_thresholds():
    net, x = layer("lif"), spikes(STEPS, BATCH, 8)
    sq.calibrate(net, [x])
    state = {k: v.clone() for k, v in net.state_dict().items()}
    assert {"0.weight", "0.bias", "0.weight_scale", "1.threshold", "1.leak", "1.v_limit"} <= set(state)
    wanted = net(x)
    with torch.no_grad():
        net[0].weight.add_(0.3)
        net[0].weight_scale.mul_(1.5)
        net[1].v_limit.mul_(0.1)
    assert not torch.equal(net(x), wanted)
    net.load_state_dict(state)
    assert torch.equal(net(x), wanted)


@pytest.mark.parametrize("rounding", ["auto", "half_up"])
def test_state_dict_moves_to_a_fresh_model(rounding):
    x = spikes(STEPS, BATCH, 8)
    net = layer("lif", rounding)
    sq.calibrate(net, [x])
    fresh = nn.Sequential(nn.Linear(8, 5), NEURONS["lif"]())
    with torch.no_grad():
        fresh[0].weight.mul_(300.0)
    sq.quantize_(fresh, sq.Plan.uniform(weight_bits=4, membrane_bits=6, membrane_rounding=rounding), x, quiet=True)
    fresh.load_state_dict(net.state_dict())
    assert fresh[1].fraction_bits == net[1].fraction_bits
    assert fresh[1].choice.membrane.rounding == net[1].choice.membrane.rounding
    assert torch.equal(fresh.eval()(x), net.eval()(x))
    sq.freeze(fresh), sq.freeze(net)
    assert torch.equal(fresh(x), net(x))


def test_what_is_not_frozen_has_no_integers():
    net = layer("lif")
    with pytest.raises(
        NotFrozen, match=r"the codes of this layer can still move; call spikequant.freeze\(model\) first"
    ):
        net[0].integer_codes()
    with pytest.raises(NotFrozen, match="the thresholds of this neuron layer can still move"):
        net[1].frozen_integers()


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_rounding_runs_forward_and_backward(rounding):
    net, x = layer("lif", rounding), spikes(STEPS, BATCH, 8)
    net(x).sum().backward()
    assert net[0].weight.grad.isfinite().all()
    assert net[0].weight.grad.abs().sum() > 0


def test_modules_print_what_they_are():
    net = layer("lif")
    assert "linear (5, 8), uniform 4 bits" in repr(net)
    assert "membrane 6 bits" in repr(net)
    sq.freeze(net)
    assert repr(net).count("frozen") == 2


def looped(model, x, steps=4):
    spikes = [model(x) for _ in range(steps)]
    return torch.stack(spikes)


@pytest.mark.parametrize("quantizer", ["uniform", "lsq"])
def test_what_a_step_needs_is_made_once_per_parameter_version(quantizer):
    """In the user's own loop over time: integers and the sums of a static input; new ones after every change."""
    torch.manual_seed(0)

    def net():
        return nn.Sequential(
            nn.Linear(8, 6), LIF(leak=0.75, step_mode="s", learn=("threshold",)), nn.Linear(6, 4), IF(step_mode="s")
        )

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x):
            return looped(self.net, x)

    model, x = Loop(), torch.rand(5, 8) * 4
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, weight_quantizer=quantizer, membrane_bits=6), x, quiet=True)
    calls = []
    neuron = model.net[1]
    integers = neuron.integers
    neuron.integers = lambda: calls.append(1) or integers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    seen = []
    for _ in range(3):
        sq.reset(model)
        calls.clear()
        optimizer.zero_grad()
        output = model(x)
        seen.append(output.detach().clone())
        assert len(calls) == 1
        fresh = copy.deepcopy(model)
        del fresh.net[1].__dict__["integers"]
        assert torch.equal(fresh(x), output)
        (output.mean() - 1).square().backward()
        assert neuron.threshold.grad is not None
        assert model.net[0].weight.grad.abs().sum() > 0
        optimizer.step()
    calls.clear()
    sq.reset(model)
    with torch.no_grad():
        model(x)
        neuron.v_limit.mul_(0.5)
        sq.reset(model)
        model(x)
    assert len(calls) == 2

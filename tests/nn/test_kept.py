"""What layers keep between calls never outlives what it was made from, and serves every backward pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import spikequant as sq
import spikequant.nn.coded_weight as kept_weight
import spikequant.nn.program as kept_program
import spikequant.nn.synapse as kept_synapse
from spikequant.nn import kept
from spikequant.nn.over_time import OverTime

STEPS, BATCH = 6, 16


def events():
    return (torch.rand(STEPS, BATCH, 12) < 0.4).float()


def network(*, learned=False, loop=False):
    torch.manual_seed(0)
    mode = {"step_mode": "s"} if loop else {}
    learn = ("leak", "threshold") if learned else ()
    layers = [nn.Linear(12, 24), sq.nn.LIF(learn=learn, **mode), nn.Linear(24, 5), sq.nn.LIF(learn=learn, **mode)]
    with torch.no_grad():
        for layer in (layers[0], layers[2]):
            layer.weight.mul_(6)
    return Loop(*layers) if loop else nn.Sequential(*(OverTime(m) if isinstance(m, nn.Linear) else m for m in layers))


class Loop(nn.Sequential):
    def forward(self, x):
        sq.reset(self)
        return torch.stack([super(Loop, self).forward(step) for step in x])


def quantized(x, **options):
    model = network(**options)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    return model


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("static", [False, True])
def test_two_forward_passes_then_two_backward_passes(learned, loop, static):
    """As in plain torch: their gradients are those of one forward and backward pass after the other."""
    x = events()
    y = events()
    if static:
        x, y = torch.rand(BATCH, 12).expand(STEPS, BATCH, 12), torch.rand(BATCH, 12).expand(STEPS, BATCH, 12)
    model = quantized(x, learned=learned, loop=loop).train()
    weights = torch.randn(STEPS, BATCH, 5)
    for data in (x, y):
        (model(data) * weights).sum().backward()
    wanted = gradients(model)
    first, second = (model(x) * weights).sum(), (model(y) * weights).sum()
    first.backward()
    second.backward()
    found = gradients(model)
    assert set(found) == set(wanted)
    assert len(wanted) >= 4
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6 * float(value.abs().max()) + 1e-12)
    assert float(first.detach().abs()) > 0


class Normed(nn.Sequential):
    def __init__(self, **mode):
        conv = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        super().__init__(
            *conv, sq.nn.LIF(step_mode="s", **mode), nn.Flatten(), nn.Linear(24, 5), sq.nn.LIF(step_mode="s")
        )
        with torch.no_grad():
            self[4].weight.mul_(6)

    def forward(self, x):
        sq.reset(self)
        return torch.stack([super(Normed, self).forward(x.reshape(-1, 1, 4, 4)) for _ in range(STEPS)])


@pytest.mark.parametrize("weights", ["uniform", "lsq"])
@pytest.mark.parametrize("mode", [{}, {"learn": ("leak", "threshold")}])
@pytest.mark.parametrize("train", [False, True])
def test_what_is_shared_counts_once(monkeypatch, weights, mode, train):
    """The gradients are those of the bare graph."""
    torch.manual_seed(1)
    x = torch.rand(BATCH, 16)
    model = Normed(**mode)
    plan = sq.Plan.uniform(weight_bits=4, membrane_bits=8, weight_quantizer=weights)
    sq.quantize_(model, plan, x, quiet=True)
    found = []
    for bare in (False, True):
        with monkeypatch.context() as patched:
            for module in (kept_weight, kept_synapse, kept_program):
                patched.setattr(module, "shared", (lambda made, sources: list(made)) if bare else kept.shared)
            twin = copy.deepcopy(model).train(train)
            output = twin(x)
            output.square().sum().backward()
            found.append(gradients(twin))
    assert output.sum() > 0
    assert set(found[0]) == set(found[1])
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-4, atol=1e-6 * float(value.abs().max()) + 1e-12)


def test_the_same_input_twice_before_two_backward_passes():
    x = torch.rand(BATCH, 12)
    model = quantized(x.expand(STEPS, BATCH, 12), loop=True).train()
    shown = [x] * STEPS
    losses = [model(shown).square().sum() for _ in range(2)]
    losses[0].backward()
    once = gradients(model)
    losses[1].backward()
    assert all(torch.allclose(once[n], g, rtol=1e-5) for n, g in gradients(model).items())


def test_hooks_of_a_user_run_once():
    x = events()
    model = quantized(x, learned=True)
    model(x).sum().backward()
    wanted = gradients(model)
    for parameter in model.parameters():
        parameter.register_hook(lambda g: 2 * g)
    model.train()
    model(x).sum().backward()
    assert all(torch.allclose(g, 2 * wanted[n], rtol=1e-5) for n, g in gradients(model).items())


def test_codes_follow_parameters_that_get_other_memory():
    x = events()
    model = quantized(x).eval()
    with torch.no_grad():
        before = model(x)
        vector = nn.utils.parameters_to_vector(model.parameters())
        nn.utils.vector_to_parameters(-vector, model.parameters())
        after = model(x)
        model.eval()
        assert torch.equal(after, model(x))
        assert not torch.equal(after, before)


def test_a_frozen_model_follows_the_state_that_it_loads():
    x = events()
    one, other = quantized(x), network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(parameter.flip(0))
    sq.quantize_(other, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    for model in (one, other):
        sq.freeze(model)
    with torch.no_grad():
        before, wanted = one(x), other(x)
        one.load_state_dict(other.state_dict())
        assert torch.equal(one(x), wanted)
        assert not torch.equal(before, wanted)


def test_a_buffer_that_numpy_fills_again_is_no_static_input():
    values = torch.rand(BATCH, 12)
    model = quantized(values.expand(STEPS, BATCH, 12), loop=True).eval()
    buffer = np.zeros((BATCH, 12), dtype=np.float32)
    x = torch.from_numpy(buffer)
    with torch.no_grad():
        for given in (values, 1 - values):
            buffer[:] = given.numpy()
            found = model([x] * STEPS)
            assert torch.equal(found, model([given.clone()] * STEPS))
            assert found.sum() > 0


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("graphed_before", [True, False])
def test_a_look_without_gradients_keeps_no_codes_for_a_step(train, graphed_before):
    """``p.data.sub_()`` makes no version; codes made with and without a graph were never each other's."""
    layer = quantized(events()).train(train)[0].layer
    with torch.set_grad_enabled(graphed_before):
        before = layer.codes().detach().clone()
    layer.weight.data.neg_()
    with torch.set_grad_enabled(not graphed_before):
        after = layer.codes().detach()
    assert before.any()
    assert not torch.equal(after, before)


@pytest.mark.parametrize("train", [True, False])
def test_what_was_frozen_when_it_was_seen_learns_afterwards(train):
    x = events()
    model = quantized(x, learned=True).train(train)
    model.requires_grad_(False)
    model(x)
    model.requires_grad_(True)
    model(x).sum().backward()
    found = gradients(model)
    model.train(train)  # nothing is kept
    model(x).sum().backward()
    wanted = gradients(model)
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], g) for name, g in wanted.items())
    assert any(g.any() for g in wanted.values())

"""`TrainingForm`: the spikes of the modules that it reads, and gradients of one step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikequant.law.errors import Unsupported
from spikequant.nn import LIF, SingleState
from spikequant.nn.eligibility import TrainingForm


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_spikes_are_those_of_the_inference_form(kind: str) -> None:
    torch.manual_seed(0)
    synapse: nn.Module = nn.Conv2d(2, 3, 3, stride=2, padding=1) if kind == "conv" else nn.Linear(6, 5)
    shape = (2, 7, 7) if kind == "conv" else (6,)
    x = (torch.rand(12, 4, *shape) < 0.3).double()
    synapse = synapse.double()
    neuron = SingleState(leak=0.8).double()
    with torch.no_grad():
        expected = neuron(torch.stack([synapse(frame) for frame in x]))
    assert 0.02 < float(expected.mean()) < 0.98
    form = TrainingForm(synapse, neuron)
    found = torch.stack([form.step(frame)[1] for frame in x])
    assert torch.equal(found, expected)
    form.reset()
    assert torch.equal(torch.stack([form.step(frame)[1] for frame in x]), expected)


def test_the_gradient_is_the_eligibility() -> None:
    torch.manual_seed(1)
    synapse, neuron = nn.Linear(4, 3), SingleState(leak=0.5)
    form = TrainingForm(synapse, neuron)
    x = (torch.rand(6, 2, 4) < 0.5).float()
    for frame in x:
        membrane, spikes = form.step(frame, perturbed=True)
    trace = sum(0.5 ** (5 - t) * frame for t, frame in enumerate(x))
    membrane.sum().backward(retain_graph=True)
    assert synapse.weight.grad is not None
    assert synapse.bias.grad is not None
    torch.testing.assert_close(synapse.weight.grad, trace.sum(0).expand(3, 4))
    assert synapse.bias.grad.tolist() == [2.0, 2.0, 2.0]
    assert form.moved is not None
    (by_membrane,) = torch.autograd.grad(spikes.sum(), form.moved)
    torch.testing.assert_close(by_membrane, neuron.surrogate.derivative(membrane.detach()))


def test_what_it_cannot_read_is_refused() -> None:
    with pytest.raises(Unsupported, match="real SingleState layer"):
        TrainingForm(nn.Linear(2, 2), LIF())
    with pytest.raises(Unsupported, match="with a bias"):
        TrainingForm(nn.Linear(2, 2, bias=False), SingleState())
    with pytest.raises(Unsupported, match="with a bias"):
        TrainingForm(nn.ReLU(), SingleState())


def test_a_charge_of_zero_does_not_fire() -> None:
    synapse = nn.Linear(1, 1)
    with torch.no_grad():
        synapse.weight.fill_(1.0)
        synapse.bias.fill_(-1.0)
    _, spikes = TrainingForm(synapse, SingleState(leak=0.5)).step(torch.ones(1, 1))
    assert spikes.tolist() == [[0.0]]
    assert F.linear(torch.ones(1, 1), synapse.weight, synapse.bias).tolist() == [[0.0]]

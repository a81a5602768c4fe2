"""A quantized model under `torch.inference_mode`: the same outputs, and nothing of it stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq


class Loop(nn.Module):
    """A time loop of the user's own over a static input."""

    def __init__(self):
        super().__init__()
        self.a, self.lif, self.b = nn.Linear(6, 8), sq.nn.LIF(step_mode="s"), nn.Linear(8, 3)
        with torch.no_grad():
            self.a.weight.mul_(4)

    def forward(self, x):
        sq.reset(self)
        total = 0
        for _ in range(5):
            total = total + self.b(self.lif(self.a(x)))
        return total


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("made_inside", [False, True])
def test_the_outputs_are_those_of_no_grad(is_frozen, made_inside):
    torch.manual_seed(0)
    model = Loop()
    x = torch.rand(4, 6)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    if is_frozen:
        sq.freeze(model)
    model.eval()
    with torch.inference_mode():
        shown = x * 1.0 if made_inside else x
        first, again = model(shown), model(shown)
        shown.mul_(0.5) if made_inside else None
        after = model(shown)
    with torch.no_grad():
        assert torch.equal(first, model(x))
        assert torch.equal(first, again)
        assert torch.equal(after, model(x * 0.5 if made_inside else x))
    assert first.abs().sum() > 0


def test_training_goes_on_after_it():
    torch.manual_seed(0)
    model = sq.models.digits_net()
    x = torch.rand(4, 1, 8, 8)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

"""A kernel that runs for the first time is believed only where all that it gives is near the plain loop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from spikequant.nn import first_use


class _Kernel(torch.autograd.Function):
    """The right values, and a gradient `factor` times the right one."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


@pytest.mark.parametrize(("factor", "near"), [(1.0, True), (1.5, False), (float("nan"), False)])
def test_gradients_are_near_or_refused(monkeypatch, factor, near):
    monkeypatch.setattr(first_use, "run_plain", lambda call, x, *_: [x * 1])
    monkeypatch.setattr(first_use, "run_fused", lambda call, x, *_: (_Kernel.apply(x, factor), {}))
    monkeypatch.setattr(first_use, "replace", lambda call, **_: call)
    monkeypatch.setattr(first_use, "_found", {})
    call = SimpleNamespace(names=(), states=(), forward_key=lambda x: "a key")
    said = first_use.disagreement(call, torch.arange(6.0).reshape(2, 3), torch.ones(()), {})
    assert said == ("" if near else "on cpu its kernel's gradients differ from the plain loop's")

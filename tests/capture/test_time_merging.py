"""Layers that take ``[T, N, ...]`` and merge time and batch by themselves, as multi-step libraries write them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.capture import LayerwiseRunner, capture, known
from spikequant.law.errors import CaptureError, DataError
from spikequant.nn import IF, LIF

STEPS, BATCH = 4, 3
PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8)


@pytest.fixture(autouse=True)
def vouched(monkeypatch):
    """As if a front-end vouched for the layers of this file."""
    monkeypatch.setattr(known, "VOUCHED", (*known.VOUCHED, __name__.partition(".")[0]))


def over_time(parent):
    """A layer with a step mode: ``"m"`` merges time and batch, ``"s"`` is the layer itself."""

    class Layer(parent):
        step_mode = "m"

        def forward(self, x):
            if self.step_mode == "s":
                return super().forward(x)
            return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    return Layer


Conv, Norm, Pool, Flat = (over_time(t) for t in (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.Flatten))
Conv1, Norm1, Average = (over_time(t) for t in (nn.Conv1d, nn.BatchNorm1d, nn.AvgPool1d))
INPUTS = {"2d": (STEPS, BATCH, 2, 6, 6), "1d": (STEPS, BATCH, 2, 8)}


def network(kind):
    """Awake networks in two and in one dimension."""
    torch.manual_seed(0)
    if kind == "2d":
        front = nn.Sequential(
            Conv(2, 4, 3, padding=1, bias=False), Norm(4), IF(), Pool(2), Conv(4, 4, 3), Norm(4), LIF()
        )
        return nn.Sequential(*front, Flat(), nn.Linear(4, 5), LIF(threshold=0.2))
    front = nn.Sequential(Conv1(2, 4, 3, padding=1), Norm1(4), IF(), Average(2), Flat(), nn.Linear(16, 8), Norm1(8))
    return nn.Sequential(*front, LIF(threshold=0.3))


def spikes(kind):
    return (torch.rand(INPUTS[kind], generator=torch.Generator().manual_seed(1)) < 0.5).float()


@pytest.mark.parametrize("kind", INPUTS)
def test_from_capture_to_verified_integers(kind):
    net, x = network(kind).train(), spikes(kind)
    net(x)  # batch norm sees data once
    sq.quantize_(net, PLAN, x, quiet=True)
    net(x).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters())
    sq.calibrate(net, [(x, None)])
    sq.freeze(net)
    proof = sq.verify(net, sq.lower(net, x), x)
    assert proof.differences == 0
    assert proof.spikes > 50


def test_batch_norm_measures_time_and_batch_together():
    net, x = network("2d").train(), spikes("2d")
    twin = copy.deepcopy(net)
    wide = sq.Plan.uniform(weight_bits=16)
    sq.quantize_(twin, wide, x, quiet=True)
    net(x)
    twin(x)
    torch.testing.assert_close(twin[1].running_mean, net[1].running_mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(twin[1].running_var, net[1].running_var, rtol=1e-3, atol=1e-4)


def test_the_layerwise_runner_gives_them_time():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.first = Conv(2, 4, 3, padding=1), IF()
            self.fc, self.last = nn.Linear(4 * 36, 5), LIF(threshold=0.05, step_mode="s")

        def forward(self, x):
            hidden = self.first(self.conv(x))
            return sum(self.last(self.fc(h.flatten(1))) for h in hidden)

    torch.manual_seed(0)
    net, x = Mixed().eval(), spikes("2d")
    runner = LayerwiseRunner(net, capture(net, x))
    wanted = net(x)
    sq.reset(net)
    assert wanted.sum() > 0
    assert torch.equal(runner(x), wanted)


def test_a_layer_in_single_step_mode_refuses_time():
    net, x = network("2d"), spikes("2d")
    net[0] = nn.Conv2d(2, 4, 3, padding=1)
    with pytest.raises((CaptureError, DataError)):
        capture(net, x)

"""A quantized network under torch.compile: the same numbers, trained by the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import LIF, kernels
from spikequant.nn.over_time import OverTime


@pytest.mark.filterwarnings("ignore")
def test_compiled_training_steps_are_those_of_eager_mode():
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(
            OverTime(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)), LIF(leak=0.75, learn=("threshold",)),
            nn.Flatten(2), nn.Linear(96, 10), LIF(),
        )  # fmt: skip
        x = (torch.rand(7, 3, 2, 6, 6) < 0.4).float()
        sq.quantize_(net, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        run = torch.compile(net, backend="aot_eager") if compiled else net
        losses = []
        with kernels.using("fused"):
            for _ in range(3):
                optimizer.zero_grad()
                y = run(x)
                loss = (y.mean(0) - torch.eye(10)[:3]).square().sum()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
        assert set(kernels.used(net).values()) <= {"fused", "plain: no C compiler was found"}
        results.append((losses, y.detach()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert torch.equal(results[0][1], results[1][1])
    assert len(set(results[0][0])) > 1

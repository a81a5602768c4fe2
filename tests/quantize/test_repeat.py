"""Adaptive pooling of a single pixel gives it many times, as VGG networks do on small images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import IF
from spikequant.nn.over_time import OverTime

PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8)


@pytest.mark.parametrize("size", [(3, 3), (1, 4), (1, 1)])
def test_one_pixel_becomes_many(size):
    torch.manual_seed(0)
    net = nn.Sequential(
        OverTime(nn.Conv2d(2, 4, 4)),
        IF(threshold=0.3),
        OverTime(nn.AdaptiveAvgPool2d(size)),
        nn.Flatten(2),
        nn.Linear(4 * size[0] * size[1], 5),
        IF(threshold=0.1),
    )
    x = (torch.rand(5, 3, 2, 4, 4) < 0.5).float()
    sq.quantize_(net, PLAN, x, quiet=True)
    sq.freeze(net)
    lowered = sq.lower(net, x)
    proof = sq.verify(net, lowered, x)
    assert proof.differences == 0
    assert proof.spikes > 10
    joins = [node for node in lowered.nodes if type(node).__name__ == "JoinNode"]
    assert len(joins) == sum(n > 1 for n in size)
    assert not joins or joins[-1].shape == (4, *size)


def test_two_pixels_become_three_is_refused():
    net = nn.Sequential(OverTime(nn.Conv2d(2, 4, 3)), IF(), OverTime(nn.AdaptiveAvgPool2d(3)), nn.Flatten(2))
    x = (torch.rand(5, 3, 2, 4, 4) < 0.5).float()
    with pytest.raises(sq.Unsupported, match="windows of different size"):
        sq.quantize_(net, PLAN, x, quiet=True)

"""Learned scales apart from the weights."""

from __future__ import annotations

import pytest
import torch

import spikequant as sq
from spikequant.training import parameter_groups


@pytest.mark.parametrize("quantizer", ["lsq", "uniform"])
def test_scales_have_a_group_of_their_own(quantizer: str) -> None:
    model = sq.models.digits_net()
    plan = sq.Plan.uniform(weight_bits=4, weight_quantizer=quantizer, membrane_bits=8)
    sq.quantize_(model, plan, torch.rand(2, 1, 8, 8), quiet=True)
    model.fc.weight.requires_grad_(False)
    groups = parameter_groups(model, 0.5, scale_rate=0.1)
    assert [group["lr"] for group in groups] == ([0.5, 0.05] if quantizer == "lsq" else [0.5])
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(wanted)
    if quantizer == "lsq":
        assert {id(p) for p in groups[1]["params"]} == {
            id(p) for name, p in model.named_parameters() if name.endswith("weight_scale")
        }

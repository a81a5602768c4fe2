"""A plan of `allocate` is never over its budget: random networks of all families, random budgets, counted afterwards."""

from __future__ import annotations

import copy
import random
import re

import pytest
import torch
import torch.nn.functional as F
from tests.conformance.networks import make

import spikequant as sq
from spikequant.analyse import allocation, hessian_trace
from spikequant.law.errors import PlanError
from spikequant.nn import Surrogate
from spikequant.nn.reset import reset_states
from spikequant.training import first_output

SEEDS = (1, 2, 4, 5, 8, 9, 10, 11, 14, 15, 16, 17, 19, 21)
"""Networks with class scores and an integer form."""


def measured(model, plan, x, y):
    """Bits of the quantized network by load, as `compare` counts them."""
    quantized = copy.deepcopy(model)
    sq.quantize_(quantized, plan, x, quiet=True)
    side = sq.compare(model, quantized, [(x, y)]).quantized
    flash, ram = round(8 * side.flash_bytes), round(8 * side.ram_bytes)
    return {"flash": flash, "ram": ram, "memory": flash + ram}


def traced(seed):
    """A random network with its traces."""
    case = make(seed)
    with torch.no_grad():
        outputs = first_output(case.model(case.inputs))
    reset_states(case.model)
    y = torch.arange(len(outputs)) % outputs.shape[1]
    traces = hessian_trace(
        case.model, F.cross_entropy, [(case.inputs, y)], roles=("weight", "membrane"), curvature="gauss-newton",
        surrogate=Surrogate("atan", 2.0), most_probes=14,
    )  # fmt: skip
    return case.model, case.inputs, y, traces


def least(traces, load):
    """The smallest size that the refusal of an impossible budget tells, in bytes."""
    with pytest.raises(PlanError) as told:
        allocation(traces, {load: 1})
    return int(re.search(r"at least ([\d,]+) are needed", str(told.value))[1].replace(",", ""))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_plan_is_over_its_budget(seed):
    model, x, y, traces = traced(seed)
    dice = random.Random(seed)
    most = allocation(traces, "100x").stored
    bytes_ = {name: least(traces, name) for name in ("memory", "flash", "ram")}
    asked = {name: few + dice.random() * (most.of(name) / 8 - few) for name, few in bytes_.items()}
    both = {name: max(asked[name], 1.1 * bytes_[name]) for name in ("flash", "ram")}  # narrower states, longer shifts
    for budget in (asked["memory"], both):
        plan = allocation(traces, budget)
        sizes = measured(model, plan.plan, x, y)
        for name, bits in plan.requested.items():
            assert sizes[name] <= bits
            assert sizes[name] == plan.counted[name]


def test_the_smallest_size_that_is_told_can_be_had():
    model, x, y, traces = traced(2)
    few = least(traces, "memory")
    assert measured(model, allocation(traces, few).plan, x, y)["memory"] <= 8 * few
    with pytest.raises(PlanError, match="cannot be kept"):
        allocation(traces, few - 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_fewest_bits_are_offered_before_flash_is_refused(seed):
    _, _, _, traces = traced(seed)
    fewest = allocation(traces, {"memory": least(traces, "memory")}).stored.flash
    assert 8 * least(traces, "flash") < fewest + 8
    assert allocation(traces, {"flash": fewest / 8}).stored.flash <= fewest

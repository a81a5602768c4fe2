"""Bits for a target: only widths that it holds, states that it fixes left to it, refusals that say why."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikequant as sq
from spikequant.analyse import allocation, budget_curve
from spikequant.law.errors import PlanError, Unsupported

RESETS = {"xylo": "subtract", "loihi-cuba": "zero", "mcu-int8": "zero"}


class Net(nn.Module):
    """16-40-4 with synaptic currents."""

    def __init__(self, reset):
        super().__init__()
        torch.manual_seed(0)
        neuron = {"leak": 0.9, "leak_i": 0.75, "reset": reset, "surrogate": sq.nn.Surrogate("atan", 2.0)}
        self.fc1, self.lif1 = nn.Linear(16, 40, bias=False), sq.nn.CubaLIF(**neuron)
        self.fc2, self.lif2 = nn.Linear(40, 4, bias=False), sq.nn.CubaLIF(**neuron)

    def forward(self, x):
        return self.lif2(self.fc2(self.lif1(self.fc1(x)))).sum(0)


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(1)
    x, y = (torch.rand(30, 8, 16) < 0.4).float(), torch.arange(8) % 4

    def of(reset):
        model = Net(reset)
        roles = ("weight", "membrane")
        return model, x, sq.sensitivity(model, F.cross_entropy, [(x, y)], roles=roles, most_probes=14)

    return {reset: of(reset) for reset in ("zero", "subtract")}


@pytest.mark.parametrize("target", RESETS)
@pytest.mark.parametrize("budget", ["1x", "0.25x", "0.21x"])
def test_the_plan_ends_on_the_target(traced, target, budget):
    model, x, traces = traced[RESETS[target]]
    found = allocation(traces, budget, target=target)
    assert found.plan.target == f"{target}/1"
    assert found.proven
    assert found.share <= float(budget[:-1])
    dressed = copy.deepcopy(model)
    sq.quantize_(dressed, found.plan, x, quiet=True)
    bits = {path: m.quantizer.bits for path, m in dressed.named_modules() if isinstance(m, sq.nn.Synapse)}
    assert bits == {layer: b for (layer, role), b in found.allocation.bits.items() if role == "weight"}
    sq.calibrate(dressed, [x])
    sq.freeze(dressed)
    net = sq.lower(dressed, x)
    assert sq.targets.check(net, target).passed
    assert not sq.verify(dressed, net, x).differences


def test_states_that_a_target_fixes_are_not_chosen(traced):
    traces = traced["subtract"][2]
    assert {role for _, role in allocation(traces, "1x", target="xylo").allocation.bits} == {"weight"}
    assert all(rule.membrane is None for rule in allocation(traces, "1x", target="xylo").plan.rules)
    chosen = allocation(traced["zero"][2], "1x", target="mcu-int8").allocation.bits
    assert {role for _, role in chosen} == {"weight", "membrane"}
    with pytest.raises(PlanError, match="the target xylo/1 has states of 16 bits and no other"):
        allocation(traces, "1x", target="xylo", membrane_widths=(8,))


def test_no_wider_weights_than_no_order_of_delivery_can_saturate(traced):
    traces = traced["subtract"][2]
    bits = allocation(traces, "1x", target="xylo").allocation.bits
    assert bits["fc2", "weight"] < bits["fc1", "weight"] == 8  # forty neurons that fire up to 31 times feed fc2


def test_widths_that_a_target_does_not_hold(traced):
    traces = traced["zero"][2]
    wide = allocation(traces, "1x", target="mcu-int8", weight_widths=(4, 8, 12), membrane_widths=(8, 16))
    assert set(wide.allocation.bits.values()) == {8, 16}
    for options, layer, most in (
        ({"weight_widths": (10, 12)}, "fc1 weight", 8),
        ({"keep": {"fc2": 9}}, "fc2 weight", 8),
    ):
        with pytest.raises(PlanError, match=f"{layer}: none of the widths .* holds {most} bits there at most"):
            allocation(traces, "1x", target="mcu-int8", **options)


def test_the_curve_of_a_target_stays_within_its_widths(traced):
    points = budget_curve(traced["zero"][2], target="mcu-int8", membrane_widths=(8, 16, 20), weight_widths=(4, 8, 9))
    assert {b for point in points for b in point.bits.values()} == {4, 8, 16}
    points = budget_curve(traced["subtract"][2], target="xylo")
    assert {role for point in points for _, role in point.bits} == {"weight"}


def test_networks_that_a_target_cannot_do(traced):
    traces = traced["zero"][2]
    with pytest.raises(Unsupported, match=r"speck/1 cannot do this network, 2 reasons:(.|\n)*use IF\(\)"):
        sq.allocate(traces, "1x", target="speck")
    with pytest.raises(Unsupported, match="did you mean 'loihi-cuba'"):
        sq.allocate(traces, "1x", target="loihi")
    with pytest.raises(PlanError, match="give one of them"):
        sq.allocate(traces, "1x", target="xylo", template=sq.Plan(target="mcu-int8"))


def test_a_template_may_name_the_target(traced):
    traces = traced["zero"][2]
    plan = sq.allocate(traces, "0.3x", template=sq.Plan(target="mcu-int8"))
    assert plan == sq.allocate(traces, "0.3x", target="mcu-int8", template=sq.Plan())


def test_one_scale_a_layer_has_errors_of_its_own(traced):
    traces = traced["zero"][2]
    own = allocation(traces, "1x", weight_widths=(4,), membrane_widths=(8,)).allocation.rise
    shared = allocation(traces, "1x", target="loihi-cuba", weight_widths=(4,)).allocation
    by_channel = sum(traces.expected_rise(layer, "weight", 4).value for layer in ("fc1", "fc2"))
    assert shared.rise > by_channel
    assert own > by_channel  # membranes besides

"""From traces to a plan inside a budget."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import spikequant as sq
from spikequant.analyse.allocate import allocate, allocation, budget_curve
from spikequant.analyse.hessian import hessian_trace
from spikequant.law.errors import DataError, PlanError
from spikequant.models import digits_net
from spikequant.recipes.demo import digit_batches


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model, (train, test) = digits_net(), digit_batches(0)
    sq.fit(model, train, epochs=1, quiet=True)
    batch = next(iter(train))
    traces = hessian_trace(
        model, F.cross_entropy, [batch], roles=("weight", "membrane"), curvature="gauss-newton", most_probes=30
    )
    return model, traces, batch, test


@pytest.mark.parametrize("share", [0.05, 0.06, 0.08, 0.1, 0.2])
def test_the_memory_of_the_plan_is_inside_the_budget(trained, share):
    model, traces, batch, test = trained
    found = allocation(traces, f"{share}x")
    quantized = copy.deepcopy(model)
    sq.quantize_(quantized, found.plan, batch[0], quiet=True)
    side = sq.compare(model, quantized, [next(iter(test))])
    bits = sum(row.bits * row.count for row in side.quantized.memory)
    whole = sum(row.bits * row.count for row in side.reference.memory)
    assert bits == found.stored.memory == found.counted["memory"]
    assert 0.9 * share < bits / whole == found.share <= share
    assert found.requested["memory"] == pytest.approx(share * whole)
    assert found.predicted["memory"] == pytest.approx(bits, rel=0.05)


def test_more_budget_is_never_worse(trained):
    _, traces, _, _ = trained
    rises = [allocation(traces, f"{share}x").allocation.rise for share in (0.05, 0.08, 0.12, 0.2, 0.3)]
    assert rises == sorted(rises, reverse=True)


def test_the_curve_agrees_with_single_budgets(trained):
    _, traces, _, _ = trained
    points = budget_curve(traces)
    for share in (0.06, 0.1, 0.2):
        found = allocation(traces, f"{share}x")
        best = max((p for p in points if p.load <= found.allocation.loads["memory"]), key=lambda p: p.load)
        assert best.rise == pytest.approx(found.allocation.rise, rel=1e-9)


def test_limits_of_several_kinds_are_all_kept(trained):
    _, traces, _, _ = trained
    found = allocation(traces, {"flash": 3000, "ram": "0.2x", "synop_bits": "0.1x"})
    assert set(found.counted) == {"flash", "ram", "synop_bits"}
    assert all(found.counted[n] <= found.requested[n] * (1 + 1e-9) for n in found.requested)
    assert found.requested["flash"] == 8 * 3000
    assert found.stored.flash <= 8 * 3000


def test_tied_layers_and_kept_layers(trained):
    _, traces, _, _ = trained
    bits = allocation(traces, "0.12x", tied=[("conv1", "fc")], keep={"conv2.layer.0": 2}).allocation.bits
    assert bits["conv1", "weight"] == bits["fc", "weight"]
    assert bits["conv2.layer.0", "weight"] == 2


def test_groups_of_tied_layers_that_share_one_are_one(trained):
    _, traces, _, _ = trained
    tied = [("conv1", "conv2.layer.0"), ("conv2.layer.0", "fc")]
    bits = allocation(traces, "0.12x", tied=tied).allocation.bits
    assert len({bits[layer, "weight"] for layer in ("conv1", "conv2.layer.0", "fc")}) == 1


def test_layers_are_kept_or_tied_only_where_weights_are_chosen(trained):
    model, _, batch, _ = trained
    traces = hessian_trace(
        model, F.cross_entropy, [batch], roles=("membrane",), curvature="gauss-newton", most_probes=14
    )
    for options in ({"keep": {"fc": 4}}, {"tied": [("conv1", "fc")]}):
        with pytest.raises(DataError, match="need its sensitivity in the role weight"):
            allocation(traces, "0.5x", **options)


def test_widths_and_traces_that_are_none(trained):
    _, traces, _, _ = trained
    with pytest.raises(PlanError, match="conv1 weight has no width to choose from"):
        allocation(traces, "0.2x", weight_widths=())
    broken = replace(traces, rows=tuple(replace(row, trace=math.inf) for row in traces.rows))
    with pytest.raises(DataError, match="not finite"):
        allocation(broken, "0.2x")


def test_the_template_keeps_what_bits_do_not_say(trained):
    _, traces, _, _ = trained
    template = sq.Plan.uniform(weight_bits=4, weight_quantizer="lsq", membrane_bits=8, membrane_rounding="stochastic")
    plan = allocate(traces, "0.1x", template=template)
    roles = [plan.layer(row.layer) for row in traces.facts.rows]
    assert {r.weight.quantizer for r in roles if r.weight is not None} <= {"lsq", "binary"}
    assert {r.membrane.rounding for r in roles if r.membrane is not None} == {"stochastic"}


def test_a_template_of_every_role_makes_a_plan_that_quantizes(trained):
    model, traces, batch, _ = trained
    template = sq.Plan.uniform(weight_bits=4, membrane_bits=8, leak_bits=6, threshold_bits=9)
    plan = allocate(traces, "0.2x", template=template)
    for row in traces.facts.rows:
        rule = plan.layer(row.layer)
        assert (rule.leak is None, rule.threshold is None, rule.membrane is None) == (row.role == "weight",) * 3
    report = sq.quantize_(copy.deepcopy(model), plan, batch[0], quiet=True)
    assert report.rows


def test_every_limit_that_is_exceeded_is_named(trained):
    _, traces, _, _ = trained
    with pytest.raises(PlanError, match=r"of flash cannot be kept: .*; a budget of \d+ bytes of ram cannot be kept"):
        allocate(traces, {"flash": 20, "ram": 20})


def test_membranes_without_a_trace_have_the_bits_that_were_asked_for(trained):
    model, _, batch, _ = trained
    traces = hessian_trace(model, F.cross_entropy, [batch], curvature="gauss-newton", most_probes=20)
    plan = allocate(traces, "0.15x", membrane_bits=6)
    assert plan.layer("lif1").membrane.bits == 6


def test_every_layer_has_a_reason(trained):
    _, traces, _, _ = trained
    text = str(allocation(traces, "0.1x"))
    for row in traces.rows:
        assert f"{row.layer} {row.role}" in text
    assert "bits would add" in text


@pytest.mark.parametrize(
    ("budget", "kind", "text"),
    [
        ("0.1", PlanError, "expected '0.1x'"),
        ("ax", PlanError, "expected '0.1x'"),
        (-3, PlanError, "positive number of bytes"),
        (True, PlanError, "positive number of bytes"),
        ({"flsh": 3}, DataError, "expected some of flash, ram, memory, synop_bits"),
        ("0.001x", PlanError, "cannot be kept"),
        (10, PlanError, r"a budget of 10 bytes of memory cannot be kept: .* without a choice"),
    ],
)
def test_budgets_that_cannot_be_are_refused(trained, budget, kind, text):
    with pytest.raises(kind, match=text):
        allocation(trained[1], budget)


def test_a_model_is_not_traces(trained):
    with pytest.raises(DataError, match="expected what hessian_trace or sensitivity gives, got Linear"):
        sq.allocate(torch.nn.Linear(2, 2), "0.1x")


def test_unknown_names_are_refused(trained):
    with pytest.raises(DataError, match="no weighted layer 'conv9'"):
        allocation(trained[1], "0.1x", keep={"conv9": 4})
    with pytest.raises(PlanError, match="13 bits"):
        allocation(trained[1], "0.1x", weight_widths=(13,))
    with pytest.raises(DataError, match="unknown load"):
        budget_curve(trained[1], "disk")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tied": "conv1"}, "tied='conv1'; expected groups of layer paths"),
        ({"tied": ("conv1", "fc")}, r"tied=\('conv1', 'fc'\); expected groups of layer paths"),
        ({"tied": 3}, "expected groups"),
        ({"keep": ["conv1"]}, r"keep=\['conv1'\]; expected whole bits by layer path"),
        ({"keep": {"conv1": "8"}}, "keep={'conv1': '8'}; expected whole bits"),
        ({"template": "plan.toml"}, "template is str; expected a Plan"),
    ],
)
def test_settings_of_another_kind_are_refused(trained, options, text):
    with pytest.raises(PlanError, match=text):
        allocation(trained[1], "0.5x", **options)


def test_one_sensitivity_is_no_list_of_them(trained):
    with pytest.raises(DataError, match="expected a list of sensitivities, got Traces alone"):
        sq.analyse.side_by_side(trained[1])

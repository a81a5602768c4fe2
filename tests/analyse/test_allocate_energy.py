"""Energy as a limit of the allocator: counted by hand, and against `compare`."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.analyse.test_compare import TARGETS, TRAIN, Hand

import spikequant as sq
from spikequant.analyse.allocate import allocation, budget_curve
from spikequant.analyse.hessian import hessian_trace
from spikequant.law.errors import DataError, PlanError
from spikequant.models import digits_net
from spikequant.recipes.demo import digit_batches

PER_BIT = 5 / 32
HAND_REAL = 9 * 0.1 + PER_BIT * (9 * 32 + 2 * 2 * (2 * 32 + 2 * 1 + 2 * 32))
"""9 accumulates, their weights; in 2 steps 2 states, spikes and results, written and read."""


def hand_quantized(bits):
    """The same with widths: results are in a register of 48 bits."""
    weights = 5 * bits["fc1", "weight"] + 4 * bits["fc2", "weight"]
    return 9 * 0.1 + PER_BIT * (weights + 2 * 2 * (2 * bits.get(("neuron", "membrane"), 8) + 2 * 1 + 2 * 48))


def hand_traces(*roles):
    return hessian_trace(Hand(), F.cross_entropy, [(TRAIN, TARGETS)], roles=roles, curvature="gauss-newton")


def compared(model, plan, x, y):
    quantized = copy.deepcopy(model)
    sq.quantize_(quantized, plan, x, quiet=True)
    return sq.compare(model, quantized, [(x, y)])


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model, (train, _) = digits_net(), digit_batches(0)
    sq.fit(model, train, epochs=1, quiet=True)
    batch = next(iter(train))
    traces = hessian_trace(
        model, F.cross_entropy, [batch], roles=("weight", "membrane"), curvature="gauss-newton", most_probes=20
    )
    return model, traces, batch


def test_a_network_counted_by_hand():
    traces = hand_traces("weight", "membrane")
    found = allocation(traces, {"energy": "1x"})
    assert found.requested["energy"] == pytest.approx(HAND_REAL)
    assert found.counted["energy"] == pytest.approx(hand_quantized(found.allocation.bits))
    assert found.predicted["energy"] == pytest.approx(found.counted["energy"])
    assert found.allocation.loads["energy"] == pytest.approx(
        hand_quantized(found.allocation.bits) - 9 * 0.1 - PER_BIT * 2 * 2 * (2 + 2 * 48)
    )
    sides = compared(Hand(), found.plan, TRAIN, TARGETS)
    assert sides.quantized.effective_acs == sides.reference.effective_acs == 9
    assert sides.reference.energy.integer_ops_and_traffic == pytest.approx(HAND_REAL)
    assert sides.quantized.energy.integer_ops_and_traffic == pytest.approx(found.counted["energy"])


def test_states_without_a_trace_are_counted_at_the_bits_that_were_asked_for():
    found = allocation(hand_traces("weight"), {"energy": 1000}, membrane_bits=5)
    bits = found.allocation.bits | {("neuron", "membrane"): 5}
    assert found.counted["energy"] == pytest.approx(hand_quantized(bits))
    assert found.predicted["energy"] == pytest.approx(hand_quantized(bits))


def test_weights_without_a_trace_count_for_energy_and_operations():
    traces = hand_traces("membrane")
    found = allocation(traces, {"energy": 1000, "synop_bits": 72})
    assert found.counted["synop_bits"] == found.predicted["synop_bits"] == 9 * 8
    bits = found.allocation.bits | {("fc1", "weight"): 8, ("fc2", "weight"): 8}
    assert found.counted["energy"] == pytest.approx(hand_quantized(bits))
    with pytest.raises(PlanError, match=r"71 synop_bits of synop_bits cannot be kept: .* 72 are needed, 72 of them"):
        allocation(traces, {"synop_bits": 71})


def test_a_refusal_says_what_the_fewest_bits_take():
    traces = hand_traces("weight", "membrane")
    least = hand_quantized({("fc1", "weight"): 1, ("fc2", "weight"): 1, ("neuron", "membrane"): 2})
    stays = 9 * 0.1 + PER_BIT * 2 * 2 * (2 + 2 * 48)
    with pytest.raises(PlanError) as told:
        allocation(traces, {"energy": 10})
    assert str(told.value) == (
        "allocate: a budget of 10 pJ of energy cannot be kept: with the bits that are allowed, at least "
        f"{int(least) + 1} are needed, {stays:.0f} of them without a choice (operations, buffers, layers without a "
        "choice of bits)"
    )
    assert allocation(traces, {"energy": least}).counted["energy"] == pytest.approx(least)


@pytest.mark.parametrize("share", [0.2, 0.25, 0.3])
def test_the_limit_binds_and_is_that_of_compare(trained, share):
    model, traces, (x, y) = trained
    found = allocation(traces, {"energy": f"{share}x"})
    sides = compared(model, found.plan, x, y)
    whole = sides.reference.energy.integer_ops_and_traffic
    assert found.requested["energy"] == pytest.approx(share * whole)
    assert 0.97 * share * whole < found.counted["energy"] <= share * whole * (1 + 1e-9)
    assert found.predicted["energy"] == pytest.approx(found.counted["energy"], rel=0.02)
    widths = {row.layer: row.bits for row in sides.quantized.memory if row.role == "weight"}
    fewer = 0.0  # operations of the quantized network less those of the real one
    for r, q in zip(sides.reference.operations, sides.quantized.operations, strict=True):
        acs, macs = q.effective_acs - r.effective_acs, q.effective_macs - r.effective_macs
        fewer += 0.1 * acs + 3.2 * macs + PER_BIT * widths[q.layer] * (acs + macs)
    assert sides.quantized.energy.integer_ops_and_traffic == pytest.approx(found.counted["energy"] + fewer)


def test_energy_and_flash_are_both_kept(trained):
    _, traces, _ = trained
    alone = allocation(traces, {"energy": "0.25x"})
    flash = 0.8 * alone.stored.flash / 8
    found = allocation(traces, {"energy": "0.25x", "flash": flash})
    assert found.counted["flash"] <= 8 * flash < alone.stored.flash
    assert found.counted["energy"] <= found.requested["energy"] * (1 + 1e-9)
    assert found.allocation.rise >= alone.allocation.rise
    lines = str(found).splitlines()
    assert lines[1].startswith(f"  energy: {found.requested['energy']:,.0f} pJ asked for, ")
    assert lines[2].startswith("  flash: ")
    assert " B asked for" in lines[2]
    assert lines[-1] == "loads in the reasons are bits of what was chosen, of energy pJ of its traffic"


def test_the_curve_of_energy_agrees_with_single_budgets(trained):
    _, traces, _ = trained
    points = budget_curve(traces, "energy")
    assert [p.load for p in points] == sorted(p.load for p in points)
    found = allocation(traces, {"energy": "0.25x"})
    best = max((p for p in points if p.load <= found.allocation.loads["energy"] * (1 + 1e-12)), key=lambda p: p.load)
    assert best.rise == pytest.approx(found.allocation.rise, rel=1e-9)


@pytest.mark.parametrize(
    ("budget", "kind", "text"),
    [
        ({"energy": -1}, PlanError, "energy = -1; expected '0.1x' .* or a positive number of picojoules"),
        ({"energy": "5 pJ"}, PlanError, "of picojoules"),
        ({"synop_bits": 0}, PlanError, "or a positive number$"),
        ({"power": 5}, DataError, "expected some of flash, ram, memory, synop_bits, energy"),
    ],
)
def test_limits_that_cannot_be_are_refused(trained, budget, kind, text):
    with pytest.raises(kind, match=text):
        allocation(trained[1], budget)

"""No plan within a budget is better than that of `allocate`: all plans of small spaces are counted beside it."""

from __future__ import annotations

import itertools
import random

import pytest
from tests.analyse.test_budget_holds import traced

import spikequant as sq
from spikequant.analyse import allocation, exact_search, parts, recount
from spikequant.law.errors import PlanError, WidthError

SEEDS = (1, 2, 4, 5, 8, 9, 11, 16)
SPACE = 48
"""Most plans that are counted one by one."""


def spaces(dice, places):
    """Random widths, two or three a role, so that the plans of all places can be counted."""
    weights = sum(role == "weight" for _, role in places)
    while True:
        found = {"weight": sorted(dice.sample([2, 3, 4, 5, 6, 8], dice.choice((1, 2, 3)))),
                 "membrane": sorted(dice.sample([3, 4, 5, 6, 8, 10], dice.choice((1, 2, 3))))}  # fmt: skip
        size = len(found["weight"]) ** weights * len(found["membrane"]) ** (len(places) - weights)
        if 4 <= size <= SPACE:
            return found


def every_plan(traces, widths):
    """``(bits, rise, stored)`` of all plans that can be quantized, counted as a whole."""
    known = traces.allocatable()
    places = known.places()
    rises = {(*place, b): known.expected_rise(*place, b).value for place in places for b in widths[place[1]]}
    some = allocation(traces, "100x", weight_widths=widths["weight"], membrane_widths=widths["membrane"]).plan
    found = []
    for bits in itertools.product(*(widths[role] for _, role in places)):
        record = some.to_dict()
        for rule, (layer, role) in (
            (r, p) for p in places for r in record["rules"] if r["match"].replace("[[]", "[") == p[0]
        ):
            rule[role] = rule[role] | {"bits": bits[places.index((layer, role))]}
        try:
            stored = traces.facts.recount(sq.Plan.from_dict(record))
        except WidthError:
            continue
        found.append((bits, sum(rises[*place, b] for place, b in zip(places, bits, strict=True)), stored))
    return found


def drawn(dice, plans):
    """Limits that some plans keep and others do not."""
    names = dice.choice(
        [("memory",), ("flash",), ("ram",), ("flash", "ram"), ("memory", "energy"), ("synop_bits", "ram")]
    )
    by_size = sorted(plans, key=lambda one: one[2].of(names[0]))
    near = by_size[dice.randrange(len(by_size))][2]
    return {n: near.of(n) * (1 if n == names[0] else dice.uniform(1, 1.1)) + dice.choice((0, 0, 7)) for n in names}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_plan_within_the_limits_is_better(seed):
    _, _, _, traces = traced(seed)
    dice = random.Random(seed)
    widths = spaces(dice, traces.allocatable().places())
    plans = every_plan(traces, widths)
    for _ in range(8):
        limits = drawn(dice, plans)
        budget = {n: most / (8 if n in ("memory", "flash", "ram") else 1) for n, most in limits.items()}
        keeping = [one for one in plans if all(one[2].of(n) <= most * (1 + 1e-9) for n, most in limits.items())]
        found = allocation(traces, budget, weight_widths=widths["weight"], membrane_widths=widths["membrane"])
        assert found.proven
        assert found.allocation.rise == pytest.approx(min(one[1] for one in keeping), rel=1e-9, abs=1e-300)
        assert all(found.stored.of(n) <= most * (1 + 1e-9) for n, most in limits.items())


@pytest.mark.parametrize("seed", [1, 4, 9])
def test_the_least_that_a_refusal_tells_is_the_least_of_all_plans(seed):
    _, _, _, traces = traced(seed)
    widths = spaces(random.Random(seed), traces.allocatable().places())
    plans = every_plan(traces, widths)
    for name in ("memory", "flash", "ram"):
        least = min(one[2].of(name) for one in plans)
        with pytest.raises(PlanError, match=f"at least {-(-int(least) // 8):,} are needed"):
            allocation(traces, {name: 1}, weight_widths=widths["weight"], membrane_widths=widths["membrane"])


def test_what_cannot_be_proven_says_so_and_holds(monkeypatch):
    _, _, _, traces = traced(1)
    proven = allocation(traces, "0.3x")
    for module, name in ((exact_search, "MOST_COUNTS"), (parts, "MOST_COMBINATIONS")):
        _, _, _, traces = traced(1)  # nothing is counted yet
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 1)
            found = allocation(traces, "0.3x")
        assert not found.proven
        assert found.share <= 0.3
        assert found.allocation.rise >= proven.allocation.rise
        assert "the best that was found" in str(found)
    assert proven.proven
    assert "the best that was found" not in str(proven)


def test_a_second_budget_counts_what_is_new_only(monkeypatch):
    _, _, _, traces = traced(4)
    counted = []
    rows = traces.facts.recount.rows
    monkeypatch.setattr(traces.facts.recount, "rows", lambda plan: counted.append(plan) or rows(plan))
    once = allocation(traces, "0.2x")
    first = len(counted)
    assert allocation(traces, "0.2x").plan == once.plan
    assert len(counted) == first + 1  # the result is counted as a whole


def test_the_first_copy_is_one_that_can_be(monkeypatch):
    _, _, _, traces = traced(1)
    wanted = allocation(traces, "0.3x")
    _, _, _, traces = traced(1)  # nothing is counted yet
    look, refused = recount.Recount.look, []

    def narrow(self, plan):
        if not refused:
            refused.append(plan)
            raise WidthError("8 bits are too many")
        return look(self, plan)

    monkeypatch.setattr(recount.Recount, "look", narrow)
    found = allocation(traces, "0.3x")
    assert refused
    assert found.proven
    assert found.allocation.bits == wanted.allocation.bits
    monkeypatch.setattr(recount.Recount, "look", lambda self, plan: (_ for _ in ()).throw(WidthError("at no width")))
    with pytest.raises(WidthError, match="at no width"):
        allocation(traces, "0.3x")

"""The allocator finds the best bits, by comparison with trying all of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.analyse.allocator import solve
from spikequant.analyse.budget_curve import curve
from spikequant.analyse.integer_program import cheapest
from spikequant.analyse.widths import Choice, Item
from spikequant.law.errors import DataError, PlanError


def random_items(seed, count=5, widths=(1, 2, 4, 8), loads=("flash", "ram"), tie=False):
    rng = np.random.default_rng(seed)
    items = []
    for k in range(count):
        size = {name: int(rng.integers(1, 50)) for name in loads}
        scale = rng.exponential()
        choices = tuple(
            Choice(b, float(scale * 4.0**-b * rng.uniform(0.5, 1.5)), {n: size[n] * b for n in loads}) for b in widths
        )
        items.append(Item(f"layer{k}", "weight", choices, tied="block" if tie and k < 2 else None))
    return items


def brute(items, limits):
    best = (math.inf, None)
    for picked in itertools.product(*(item.choices for item in items)):
        tied = {c.bits for c, item in zip(picked, items, strict=True) if item.tied}
        if len(tied) > 1:
            continue
        if all(sum(c.loads.get(n, 0) for c in picked) <= most for n, most in limits.items()):
            rise = sum(c.rise for c in picked)
            if rise < best[0]:
                best = (rise, [c.bits for c in picked])
    return best


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.booleans())
def test_equals_trying_everything(seed, flash, ram, tie):
    items = random_items(seed, tie=tie)
    most = {n: sum(max(c.loads[n] for c in i.choices) for i in items) for n in ("flash", "ram")}
    limits = {"flash": flash * most["flash"], "ram": ram * most["ram"]}
    rise, bits = brute(items, limits)
    if bits is None:
        with pytest.raises(PlanError):
            solve(items, limits)
        return
    found = solve(items, limits)
    assert found.rise == pytest.approx(rise, rel=1e-9)
    assert all(found.loads[n] <= limits[n] * (1 + 1e-9) for n in limits)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_curve_holds_every_breakpoint(seed, tie):
    items = random_items(seed, count=4, tie=tie)
    points = curve(items, "flash")
    loads = sorted(
        {
            sum(c.loads["flash"] for c in picked)
            for picked in itertools.product(*(i.choices for i in items))
            if len({c.bits for c, i in zip(picked, items, strict=True) if i.tied}) <= 1
        }
    )
    for budget in loads:
        best = max((p for p in points if p.load <= budget), key=lambda p: p.load)
        assert best.rise == pytest.approx(brute(items, {"flash": budget})[0], rel=1e-12)
    assert all(b.load > a.load and b.rise < a.rise for a, b in itertools.pairwise(points))
    for p in points:
        total = sum(next(c for c in i.choices if c.bits == p.bits[i.layer, i.role]).loads["flash"] for i in items)
        assert total == pytest.approx(p.load)


def test_no_limit_gives_the_least_rise_everywhere():
    items = random_items(0)
    found = solve(items, {})
    assert found.rise == pytest.approx(sum(min(c.rise for c in i.choices) for i in items))


def test_more_bits_that_hurt_are_not_taken():
    item = Item("a", "weight", (Choice(2, 0.1, {"flash": 2}), Choice(4, 0.3, {"flash": 4})))
    assert solve([item], {"flash": 100}).bits == {("a", "weight"): 2}


def test_reasons_say_what_one_step_changes():
    narrow, wide = Choice(2, 1.0, {"flash": 20}), Choice(4, 0.25, {"flash": 40})
    items = [Item("a", "weight", (narrow, wide)), Item("b", "weight", (Choice(2, 0.5, {"flash": 20}), wide))]
    found = solve(items, {"flash": 60})
    assert found.reasons["a", "weight"] == ("4 bits, expected rise 0.25; 2 bits would add 0.75 and save 20 flash")
    assert found.reasons["b", "weight"] == (
        "2 bits, expected rise 0.5; 4 bits would take off 0.25, but flash would be 80 of 60"
    )


def test_reasons_say_rises_that_grow_with_the_bits_without_a_minus():
    grows = Item("a", "weight", (Choice(2, 0.1, {"flash": 20}), Choice(4, 0.3, {"flash": 40})))
    flat = Item("b", "weight", (Choice(2, 0.5, {"flash": 20}), Choice(4, 0.5, {"flash": 40})))
    found = solve([grows, flat], {"flash": 50})
    over = "and flash would be 60 of 50"
    assert found.reasons["a", "weight"] == f"2 bits, expected rise 0.1; 4 bits would add 0.2, {over}"
    assert found.reasons["b", "weight"] == f"2 bits, expected rise 0.5; 4 bits would change nothing, {over}"


def test_a_limit_that_cannot_be_kept_says_what_is_needed():
    items = random_items(3)
    with pytest.raises(PlanError, match=r"the limit flash = 1 cannot be kept: .* are needed"):
        solve(items, {"flash": 1})


def test_every_limit_that_cannot_be_kept_is_named():
    with pytest.raises(PlanError, match=r"the limit flash = 1 cannot be kept: .*; the limit ram = 2 cannot be kept: "):
        solve(random_items(3), {"flash": 1, "ram": 2})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.booleans())
def test_groups_that_share_no_limit_are_solved_apart(seed, apart, whole):
    """Any rises, also ones that grow with the load; limits over some of the groups; whole numbers and others."""
    rng = np.random.default_rng(seed)
    rises = [rng.normal(size=rng.integers(1, 5)) for _ in range(6)]
    loads = [
        [
            (rng.integers(0, 9, len(r)).astype(float) if whole else rng.random(len(r))) * (g % apart == j)
            for g, r in enumerate(rises)
        ]
        for j in range(apart)
    ]
    loads.append([rng.random(len(r)) * (g > 3) for g, r in enumerate(rises)])
    most = [float(sum(rng.choice(row) for row in limit)) for limit in loads]
    best = math.inf
    for picked in itertools.product(*(range(len(r)) for r in rises)):
        if all(
            sum(row[k] for row, k in zip(limit, picked, strict=True)) <= m * (1 + 1e-9)
            for limit, m in zip(loads, most, strict=True)
        ):
            best = min(best, sum(r[k] for r, k in zip(rises, picked, strict=True)))
    found = cheapest(rises, [*loads, loads[0]], [*most, math.inf])
    if found is None:
        assert best == math.inf
        return
    assert sum(r[k] for r, k in zip(rises, found, strict=True)) == pytest.approx(best, abs=1e-9)
    used = [math.fsum(row[k] for row, k in zip(limit, found, strict=True)) for limit in loads]
    assert all(u <= m * (1 + 1e-9) for u, m in zip(used, most, strict=True))


def test_limits_that_exclude_each_other():
    fast = Choice(1, 1.0, {"flash": 10, "ram": 0})
    small = Choice(2, 1.0, {"flash": 0, "ram": 10})
    with pytest.raises(PlanError, match="flash <= 5 and ram <= 5 together"):
        solve([Item("a", "weight", (fast, small))], {"flash": 5, "ram": 5})


@pytest.mark.parametrize(
    ("items", "limits", "text"),
    [
        ([], {}, "no layers"),
        ([Item("a", "weight", ())], {}, "no width to choose"),
        ([Item("a", "weight", (Choice(2, math.nan),))], {}, "not finite"),
        (
            [Item("a", "weight", (Choice(2, 1.0, {"flash": 1}),))],
            {"flsh": 1},
            "no layer has a load 'flsh'; expected some of flash",
        ),
        ([Item("a", "weight", (Choice(2, 1.0, {"flash": 1}),))], {"flash": math.nan}, "is NaN"),
        ([Item("a", "w", (Choice(2, 1.0),)), Item("a", "w", (Choice(2, 1.0),))], {}, "given twice"),
    ],
)
def test_wrong_input_is_refused(items, limits, text):
    with pytest.raises((DataError, PlanError), match=text):
        solve(items, limits)


def test_tied_layers_without_a_common_width():
    items = [Item("a", "weight", (Choice(2, 1.0),), "t"), Item("b", "weight", (Choice(4, 1.0),), "t")]
    with pytest.raises(PlanError, match="no width is allowed for all"):
        solve(items, {})


def test_a_limit_is_kept_to_the_bit_beside_a_huge_layer():
    """Seven bits too many beside 200 million are within the tolerances of HiGHS, and beyond the limit."""
    small = Item("a", "weight", (Choice(1, 1.0, {"flash": 10_000_000}), Choice(2, 0.0, {"flash": 10_000_007})))
    huge = Item("b", "weight", (Choice(1, 1.0, {"flash": 90_000_000}), Choice(2, 0.0, {"flash": 200_000_000})))
    found = solve([small, huge], {"flash": 100_000_005})
    assert found.bits == {("a", "weight"): 1, ("b", "weight"): 1}
    assert solve([small, huge], {"flash": 100_000_007}).bits["a", "weight"] == 2

"""Claims, floors and figures of a table, from rows that are written by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spikequant.recipes import behaviour
from spikequant.recipes.papers import beyond_accuracy
from spikequant.recipes.reproduction import Line, Recipe, change, table


def _row(line: str, seed: int, after: float, emd: float = 0.01, **more: Any) -> dict[str, Any]:
    layer = {"layer": "lif", "emd": emd, "quantiles": [0.1] * 21, "reference_quantiles": [0.2] * 21}
    return {"line": line, "seed": seed, "before": 0.5, "after": after, "interval_points": 1.0, "emd": emd,
            "emd_floor": 0.002, "seed_floor": None, "dead": 0.25, "reference_dead": 0.5, "layers": [layer],
            "curve": [{"epoch": 1, "loss": 1.0, "accuracy": 0.5}], **more}  # fmt: skip


def test_a_goal_is_met_when_the_end_of_the_interval_meets_it() -> None:
    one = [_row("a", 0, 0.496)]  # -0.4 points, half an interval of 1.0 over its samples
    assert behaviour.within(one, 1.5, "").met is True
    assert behaviour.within(one, 1.3, "").met is False
    assert behaviour.within([], 1.0, "").met is None
    three = [_row("a", seed, after) for seed, after in enumerate((0.49, 0.50, 0.51))]
    mean, margin = change(three)
    assert math.isclose(mean, 0.0, abs_tol=1e-9)
    assert math.isclose(margin, 4.303 / math.sqrt(3), rel_tol=1e-3)  # Student's t of three, deviation of one point


@pytest.mark.parametrize(("interval", "verdict"), [(0.25, "met"), (1.5, "missed"), (None, "missed")])
def test_the_goal_of_a_line_is_judged_by_the_end_of_its_interval(interval: float | None, verdict: str) -> None:
    row = _row("a", 0, 0.495) | {"smaller": 11.0, "seconds": 1.0}
    row = {k: v for k, v in row.items() if k != "interval_points"} | (
        {} if interval is None else {"interval_points": interval}
    )
    found = Recipe(
        title="", lines=(Line(name="a", paper="", goal_smaller=10, goal_points=1),), rows=lambda _: (), differences=()
    )
    told = "-0.50" if interval is None else f"-0.50 ± {interval:.2f}"
    assert f"| {told} | at least 11.0 | 10 x within 1: {verdict} |" in table(found, "smoke", {"a-0": row}, {})


def test_the_table_holds_what_the_rows_hold() -> None:
    rows = {
        "control-0": _row("control", 0, 0.52, emd=0.004, float_curve=[{"epoch": 1, "loss": 2.0, "accuracy": 0.3}]),
        "control-1": _row("control", 1, 0.54, emd=0.006, seed_floor=0.03),
        "w2-lq-net-0": _row("W2 LQ-Net", 0, 0.5, emd=0.008, untrained=0.25),
        "w2-lq-net-1": _row("W2 LQ-Net", 1, 0.5, emd=0.010, untrained=0.35),
        "w2-uniform-wide-0": _row("W2 uniform wide", 0, 0.4, emd=0.1),
    }
    text = "\n".join(beyond_accuracy.sections(rows))
    assert "| W2 LQ-Net | 2 | 30.00 | 50.00 | +0.00 ± 0.00 | -3.00 | 0.0090 | 50.0 → 25.0 |" in text
    assert "| W2 uniform wide | 1 |  | 40.00 | -10.00 ± 1.00 | -12.00 | 0.1000 |" in text
    assert "0.0020 between two halves of the test set, 0.0050 between the float network and its control" in text
    assert "0.0300 between two seeds" in text
    assert "| EMD of LQ-Net W2 under a tenth of uniform wide W2 | 0.0090 against 0.1000: 0.09 | met |" in text
    assert "(upper end of the interval) | +0.00 ± 0.00 points, 2 rows | met |" in text
    pictures = beyond_accuracy.drawings(rows)
    assert sorted(pictures) == [
        "curves-0.svg", "curves-1.svg", "emd-of-each-layer-at-2-bits.svg", "rates-in-the-last-layer-at-2-bits.svg",
    ]  # fmt: skip
    assert pictures["curves-0.svg"].count("<polyline") == 4  # float, control, two settings


def test_firing_is_kept_only_at_the_same_accuracy() -> None:
    learned = {f"l{seed}": _row("W2 LQ-Net", seed, 0.5, emd=0.02) for seed in (0, 1)}
    for after, emd, met in ((0.495, 0.01, True), (0.48, 0.01, False), (0.5, 0.02, False)):
        kept = {"k0": _row("W2 LQ-Net, firing kept", 0, after, emd=emd)}  # one seed: beside LQ-Net's row of that seed
        assert beyond_accuracy.claims({**learned, **kept})[2].met is met


@pytest.mark.parametrize(("own", "met"), [(0.01, True), (0.03, False)])
def test_learned_membranes_are_judged_on_the_seeds_that_all_have(own: float, met: bool) -> None:
    rows = {f"l{seed}": _row("U2 learned", seed, 0.5, emd=own) for seed in (0, 1)}
    rows |= {"u0": _row("U2 unsigned", 0, 0.5, emd=0.02)}
    assert beyond_accuracy.claims(rows)[3].met is None
    rows |= {"s0": _row("U2 signed", 0, 0.5, emd=0.04), "u1": _row("U2 unsigned", 1, 0.5, emd=0.0)}
    claim = beyond_accuracy.claims(rows)[3]
    assert claim.met is met
    assert claim.found == f"{own:.4f} against 0.0200 unsigned, 0.0400 signed, 1 of each"


def test_rows_that_are_claimed_come_first_and_every_cell_of_the_grid_has_one() -> None:
    rows = beyond_accuracy.RECIPE.rows("local")
    seeds = [(row.line, row.seed) for row in rows]
    assert len(set(seeds)) == len(seeds)
    first = 5 * (1 + len(beyond_accuracy.CLAIMED))
    assert {line for line, _ in seeds[:first]} == {"control", *beyond_accuracy.CLAIMED}
    ways = ("W{} uniform narrow", "W{} uniform wide", "W{} LQ-Net", "U{} signed", "U{} unsigned", "U{} learned")
    assert {(way.format(bits), 0) for way in ways for bits in (2, 4, 6, 8)} <= set(seeds)


@pytest.mark.parametrize("claim", beyond_accuracy.claims({}))
def test_without_rows_a_claim_says_so(claim: behaviour.Claim) -> None:
    assert claim.met is None
    assert claim.found == "not run"

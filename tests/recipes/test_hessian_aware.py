"""`reproduce hessian-aware`: the smallest scale after a kill, and its arithmetic worked out anew."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.recipes.bits_and_losses import correlation, drawing, section, spearman
from spikequant.recipes.papers.hessian_aware import RECIPE, equal_size, hand_section, row_by_row
from spikequant.recipes.reproduction import table

numbers = st.lists(st.integers(-3, 3).map(float), min_size=3, max_size=12)


@given(numbers, st.integers(0, 2**31 - 1))
def test_spearman_equals_scipys(x: list[float], seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    y = np.random.default_rng(seed).integers(0, 5, len(x)).astype(float).tolist()
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert math.isnan(spearman(x, y))
        return
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_the_interval_draws_whole_networks() -> None:
    rising = [[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]] * 5
    assert correlation(rising) == (1.0, 1.0, 1.0)
    mixed = [*rising[:3], *[[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]] * 3]
    value, low, high = correlation(mixed)
    assert value == 0.0
    assert low == -high < -0.5
    assert math.isnan(correlation(rising[:4])[1])


def row(line: str, gain: float, before: float = 0.9, after: float = 0.89) -> dict[str, Any]:
    outcomes = {"equal": {"after": after - gain / 100}, "allocated": {"after": after}}
    return {
        "line": line, "seed": 0, "before": before, "after": after, "smaller": 10.5, "seconds": 1.0,
        "gain_points": gain, "outcomes": outcomes,
        "alone": [
            {"layer": f"l{k}", "bits": 2, "trace": 10.0**k, "mean_curvature": 1.0 / (k + 1), "rise": 2.0 * k,
             "lost_points": float(k)} for k in range(3)
        ],
    }  # fmt: skip


def outcomes_of(rows: dict[str, Any]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = rows["a"]["outcomes"]
    return found


def test_sections_say_what_the_rows_hold() -> None:
    rows = {"a": row("mnist, conv", 0.5), "b": row("mnist, conv", -0.1), "c": row("SHD, recurrent", 2.0)}
    text = "\n".join(equal_size(rows))
    assert "| mnist, conv | 2 | 88.80 | 89.00 | +0.20 ± 3.81 | -0.10 |" in text  # 12.706 * 0.4243 / sqrt 2
    assert "| SHD, recurrent | 1 | 87.00 | 89.00 | +2.00 | +2.00 |" in text
    found = "\n".join(section(rows))
    assert "9 layers of 3 networks" in found
    assert "| 2 | +1.00 | -1.00 | +1.00 |" in found
    assert "without an interval, which takes 5 networks or more" in found
    more = "\n".join(section({**rows, "d": rows["a"], "e": rows["b"]}))
    assert "| 2 | +1.00 (+1.00 to +1.00) | -1.00 (-1.00 to -1.00) | +1.00 (+1.00 to +1.00) |" in more
    picture = drawing(rows)
    assert picture.count("<circle") == 9
    assert picture.startswith("<svg")
    paired = {
        "test_samples": 400,
        "differences": 0,
        "change_points": -1.0,
        "interval_points": 0.5,
        "gain_interval": 0.25,
    }
    held = {**rows["a"], **paired, "outcomes": {k: {**v, "before_training": 0.8} for k, v in outcomes_of(rows).items()}}
    assert "| a | 400 | -1.00 ± 0.50 | +0.50 ± 0.25 | 80.00, 80.00 |" in "\n".join(row_by_row({"a": held}))
    assert row_by_row(rows) == []
    assert equal_size({}) == section({}) == hand_section({}) == []
    assert drawing({}) == ""
    whole = table(RECIPE, "local", rows, {})
    assert "| mnist, conv | 0.2 points at 2.4 x smaller (N-MNIST) | 2 | 90.00 | 89.00 | -1.00 ± 0.00 |" in whole
    assert "10 x within 0.2: missed" in whole


def test_bits_by_hand_are_averaged_over_folds() -> None:
    def fold(hand: float) -> dict[str, Any]:
        one = {"pattern": "8/8/16", "smaller": 2.4, **{k: {"after": hand} for k in ("hand", "equal", "allocated")}}
        return {"line": "n-mnist", "by_hand": [one], "states": {"original": 40, "training": 30, "inference": 10}}

    text = "\n".join(hand_section({"a": fold(0.8), "b": fold(0.9)}))
    assert "| n-mnist | 8/8/16 | 2 | 2.40 | 85.00 | 85.00 | 85.00 |" in text
    assert "40 numbers in the original form" in text


def started(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "spikequant", "reproduce", "hessian-aware", "--scale", "smoke", "--out", str(folder)]
    said = (folder.parent / f"{time.monotonic_ns()}.log").open("wb")
    with said:  # the child keeps its own handle
        return subprocess.Popen([*words, *more], stdout=said, stderr=said, env=dict(os.environ))


def test_smoke_goes_on_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    checkpoint = folder / "work" / "digits-0" / "float.safetensors"
    first = started(folder)
    until = time.monotonic() + 240
    while not checkpoint.exists() and first.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert checkpoint.exists()
    assert not list((folder / "rows").glob("*.json"))
    second = started(folder, "--resume")
    assert second.wait(timeout=600) == 0, [log.read_text() for log in tmp_path.glob("*.log")]
    record = json.loads((folder / "rows" / "digits-0.json").read_text())
    _check_row(record)
    text = (folder / "table.md").read_text()
    change = 100 * (record["after"] - record["before"])
    assert re.search(rf"\| digits, conv \| [^|]+ \| 1 \| .* \| {re.escape(f'{change:+.2f}')} ± [0-9.]+ \|", text)
    assert (folder / "trace.svg").read_text().count("<circle") == 3
    third = started(folder, "--resume")
    assert third.wait(timeout=240) == 0
    assert json.loads((folder / "rows" / "digits-0.json").read_text()) == record


def _check_row(record: dict[str, Any]) -> None:
    whole, small = record["bytes"]
    outcomes = record["outcomes"]
    assert record["smaller"] == pytest.approx(whole / small)
    assert record["smaller"] >= 10
    assert outcomes["allocated"]["bytes"] <= outcomes["equal"]["bytes"] <= whole / 10
    assert record["differences"] == 0
    gain = 100 * (outcomes["allocated"]["after"] - outcomes["equal"]["after"])
    assert record["gain_points"] == pytest.approx(gain, abs=1e-4)
    assert record["change_points"] == pytest.approx(100 * (record["after"] - record["before"]), abs=1e-4)
    losses = {name: one["loss"] for name, one in record["proposals"].items()}
    assert record["picked"] == min(losses, key=losses.__getitem__)
    traces = {r["layer"]: r for r in record["traces"]["rows"] if r["role"] == "weight"}
    assert {p["layer"] for p in record["alone"]} == set(traces)
    for point in record["alone"]:
        assert point["trace"] == traces[point["layer"]]["trace"] > 0
        assert point["rise"] > 0
    assert record["before"] > 0.85
    assert record["after"] > record["before"] - 0.08

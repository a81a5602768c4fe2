"""Figures that docs/adr says are measured here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from spikequant.law.rounding import DETERMINISTIC_ROUNDINGS, shift_right

SECTIONS = ["Context", "Decision", "Consequences", "Evidence"]
ADR = Path(__file__).resolve().parents[2] / "docs" / "adr"


def test_dead_bands_and_translation() -> None:
    """ADR 0002: leak 230/256 without input, from every 8-bit state."""
    page = (ADR / "0002-rounding-names-and-defaults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (-?\d+)(?: \.\.\. (-?\d+))?", page, flags=re.MULTILINE)
    written = {name: (moves == "yes", int(low), int(high or low)) for name, moves, low, high in rows}
    found = {}
    for rule in DETERMINISTIC_ROUNDINGS:
        v = np.arange(-128, 128)
        for _ in range(500):
            v = shift_right(v * 230, 8, rule)
        a = np.arange(-64, 64)
        moves = all((shift_right(a + 4 * n, 2, rule) == shift_right(a, 2, rule) + n).all() for n in range(-5, 6))
        found[rule] = (moves, int(v.min()), int(v.max()))
    assert found == written


def test_thresholds_on_the_grid_depend_on_the_float_type() -> None:
    """ADR 0003: why integers are stored and not computed again."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(1e-4, 1e-1, 100_000).astype(np.float32)
    theta = (rng.integers(1, 2000, scale.size) * scale.astype(np.float64)).astype(np.float32)
    single, double = np.ceil(theta / scale), np.ceil(theta.astype(np.float64) / scale.astype(np.float64))
    assert np.mean(single != double) > 1 / 3


def test_every_decision_is_in_the_index() -> None:
    index = (ADR / "README.md").read_text(encoding="utf-8")
    pages = sorted(p.name for p in ADR.glob("0*.md"))
    assert [p[:4] for p in pages] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    for name in pages:
        page = (ADR / name).read_text(encoding="utf-8")
        assert f"]({name})" in index
        assert page.startswith(f"# {name[:4]} ")
        assert re.findall(r"^## (.*)$", page, flags=re.MULTILINE) == SECTIONS, name

"""The page of sensitivities: what it says, and that it draws in a real Chromium."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikequant as sq
from spikequant.nn import LIF
from spikequant.report import Provenance, write_sensitivities

pytest.importorskip("plotly", reason="the extra 'report' is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.lif, self.last = nn.Linear(8, 12), LIF(), nn.Linear(12, 3)
        with torch.no_grad():
            self.first.weight.mul_(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.lif(self.first(x))).mean(0)
        return out


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    batch = (torch.rand(5, 16, 8) < 0.5).float(), torch.arange(16) % 3
    found = [
        sq.sensitivity(Net(), F.cross_entropy, [batch], method="gauss-newton", most_probes=20),
        sq.sensitivity(Net(), F.cross_entropy, [batch], method="emd-rise", weight_widths=(4,), membrane_widths=(8,)),
    ]
    path = tmp_path_factory.mktemp("page") / "sensitivity.html"
    return write_sensitivities(found, path, provenance=Provenance(command="spikequant sensitivity x", seed=0))


def test_the_page_names_methods_layers_ranks_and_the_command(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    body = text[text.index("<main") : text.index('<script type="application/json"')]
    for word in ("gauss-newton", "emd-rise", "first", "last", "lif", "Weights at 4 bits", "Membranes at 8 bits"):
        assert word in body
    assert "spikequant sensitivity x" in body
    assert re.search(r"\d ± \d", body)
    assert "https://" not in text[: text.index("<script>")]


@needs_browser
def test_both_plots_are_drawn_with_error_bars(page: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            tab, problems = browser.new_page(), []
            tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: problems.append(str(error)))
            tab.goto(page.as_uri())
            drawn = tab.evaluate(
                "() => [...document.querySelectorAll('[data-plot]')].map(e => "
                "[e.dataset.plot, e.querySelectorAll('svg .point').length, e.querySelectorAll('svg .errorbar').length])"
            )
        finally:
            browser.close()
    assert not problems
    assert drawn == [["weight", 4, 4], ["membrane", 2, 2]]

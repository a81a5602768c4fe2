"""docs/quickstart.md and the README's journey run from top to bottom."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import ROOT, run_blocks


def test_the_quickstart_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "quickstart"}
    started = time.process_time()
    run_blocks(ROOT / "docs" / "quickstart.md", names)
    assert time.process_time() - started < 60
    assert names["real"] > 0.85
    assert names["quantized"] > names["real"] - 0.05
    proof = names["proof"]
    assert (proof.differences, proof.first) == (0, None)
    assert proof.spikes > 1000, "equality of silent networks proves nothing"
    assert bool(names["same"])
    assert "0 differences" in capsys.readouterr().out
    assert (tmp_path / "digits.spq").stat().st_size > 1000


def test_the_journey_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's lines on a tiny network: the names and the order are right."""
    import torch

    import spikequant as sq

    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8), sq.nn.LIF(leak=0.5), torch.nn.Linear(8, 3), sq.nn.IF(threshold=0.2)
    )

    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.net(x).sum(0)
            return result

    example = (torch.rand(5, 4, 6) > 0.4).float()
    names: dict[str, Any] = {
        "model": Counts(),
        "example_input": example,
        "inputs": example,
        "batches": [(example, torch.arange(4) % 3)],
    }
    run_blocks(ROOT / "README.md", names)
    assert names["result"].differences == 0
    assert names["result"].spikes > 0

"""Q-SpiNN's smallest scale, and what a reproduction keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spikequant.law.errors import ArtifactError, DataError
from spikequant.models import PLIFNet
from spikequant.recipes.papers import q_spinn
from spikequant.recipes.reproduction import Bench, recipe, recipe_names, reproduce

pytest.importorskip("optuna", reason="Optuna is an extra: explore")
pytest.importorskip("numba", reason="learning without labels needs numba or a compiler")


def test_smoke_writes_its_table_and_resumes_by_row(tmp_path: Path) -> None:
    said: list[str] = []
    found = reproduce("q-spinn", "smoke", Bench(folder=tmp_path, say=said.append))
    assert set(found["rows"]) == {"digits-0", "unsupervised-digits-0"}
    supervised = found["rows"]["digits-0"]
    assert supervised["before"] > 0.8
    assert supervised["after"] > supervised["before"] - 0.05
    assert supervised["smaller"] > 4
    assert supervised["differences"] == 0
    assert supervised["looks"]
    assert (supervised["explored_on"], supervised["decided_on"]) == (180, 233)
    assert {row["factor"] for row in supervised["tolerance"]} == {"*:weight", "*:membrane"}
    plastic = found["rows"]["unsupervised-digits-0"]
    assert plastic["before"] > 0.3
    assert plastic["smaller"] > 4
    text = (tmp_path / "table.md").read_text()
    assert "| digits, conv | about 2 x smaller within 2 points (DVS-Gesture) | 1 |" in text
    assert "What differs from the paper:" in text
    (tmp_path / "rows" / "unsupervised-digits-0.json").write_text(json.dumps(plastic))
    said.clear()
    assert reproduce("q-spinn", "smoke", Bench(folder=tmp_path, say=said.append))["rows"] == found["rows"]
    assert said == []
    (tmp_path / "rows" / "digits-0.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is not a row of a reproduction"):
        reproduce("q-spinn", "smoke", Bench(folder=tmp_path))


def test_every_recipe_has_rows_and_lines_for_them() -> None:
    for name in recipe_names():
        found = recipe(name)
        for scale in ("smoke", "local", "paper"):
            rows = found.rows(scale)  # type: ignore[arg-type]
            assert len({row.name for row in rows}) == len(rows) > 0
            assert {row.line for row in rows} <= {line.name for line in found.lines}


def test_rows_without_data_are_left_out_with_the_reason(tmp_path: Path) -> None:
    found = reproduce("q-spinn", "local", Bench(folder=tmp_path, data_dir=tmp_path / "nothing"))
    assert found["rows"] == {}
    assert "shd-fold-0" in found["left_out"]
    assert "Left out:" in found["table"]


def test_the_papers_network_has_rows_for_who_has_its_data(tmp_path: Path) -> None:
    rows = [row for row in recipe("q-spinn").rows("paper") if row.line == "DVS128 Gesture, PLIF"]
    assert [row.name for row in rows] == [f"dvs-gesture-{seed}" for seed in range(5)]
    with pytest.raises(DataError, match="gesture"):
        rows[0].run(Bench(folder=tmp_path, data_dir=tmp_path))


@pytest.mark.parametrize(
    ("scale", "name", "sizes"),
    [("smoke", "digits-0", (180, 233)), ("local", "mnist-0", (1000, 5024)), ("paper", "mnist-0", (2000, 3000))],
)
def test_nothing_is_decided_on_what_was_explored_or_trained_on(
    scale: Any, name: str, sizes: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[bytes]] = {}

    def kept(what: str, batches: Any) -> int:
        images = [image.numpy().tobytes() for x, _ in batches for image in x]
        seen[what] = set(images)
        return len(images)

    class Done(Exception):
        pass

    def fit(model: Any, batches: Any, **options: Any) -> Any:
        kept("trained", batches)
        return SimpleNamespace(interrupted=False)

    def explored(bench: Any, model: Any, learn: Any, explored: Any, deciding: Any, test: Any, **rest: Any) -> Any:
        assert (kept("explored", explored), kept("decided", deciding)) == sizes
        kept("calibrated", learn)
        raise Done

    monkeypatch.setattr(q_spinn, "fit", fit)
    monkeypatch.setattr(q_spinn, "_explored", explored)
    (row,) = [row for row in recipe("q-spinn").rows(scale) if row.name == name]
    try:
        with pytest.raises(Done):
            row.run(Bench(folder=tmp_path))
    except DataError as error:
        pytest.skip(str(error))
    assert not seen["decided"] & seen["explored"]
    assert not seen["decided"] & seen["trained"]
    assert seen["calibrated"] <= seen["trained"]


def test_a_row_of_gestures_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    class Gestures:
        """Twelve samples of three classes as frames; a class lights a corner."""

        def batches(self, split: str, *, batch_size: int, **options: Any) -> list[tuple[Tensor, Tensor]]:
            y = torch.arange(12) % 3
            x = torch.from_numpy((rng.random((4, 12, 2, 16, 16)) < 0.1).astype("float32"))
            for k in range(12):
                x[:, k, :, 5 * int(y[k]) : 5 * int(y[k]) + 5] = 1.0
            found = [(x[:, k : k + batch_size], y[k : k + batch_size]) for k in range(0, 12, batch_size)]
            return Batches(found)

    class Batches(list[Any]):
        def set_epoch(self, epoch: int) -> None:
            pass

    monkeypatch.setattr(q_spinn.sets, "load", lambda name, *, folder, steps: Gestures())
    small = partial(PLIFNet, 2, size=16, hidden=8, classes=3, width=4)
    monkeypatch.setitem(q_spinn.NETWORKS, "dvs-gesture", small)
    how = replace(q_spinn.SMOKE, epochs=1, trials=2, validation=12, confirmation=12, max_drop=100.0)
    found = q_spinn.images_row(Bench(folder=tmp_path), name="dvs-gesture", seed=0, how=how)
    assert found["differences"] == 0
    assert found["smaller"] > 1.5
    assert found["test_samples"] == 12

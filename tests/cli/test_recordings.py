"""Options of recordings: how they are cut, and what a frame counts, from `train` on to `quantize`."""

from __future__ import annotations

import json

NETWORK = """
from torch import nn

import spikequant as sq


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2 * 4 * 4, 5)
        self.lif = sq.nn.LIF(leak=0.75, threshold=0.05)

    def forward(self, x):
        pooled = nn.functional.avg_pool2d(x.flatten(0, 1), 32).flatten(1)
        return self.lif(self.fc(pooled).unflatten(0, x.shape[:2])).sum(0)


def build():
    return Net()
"""


def test_windows_and_counts_are_those_of_the_options_and_of_the_run(run, data_folder, tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    cut = ["--data", "dvs128-objects", "--data-dir", data_folder, "--window-ms", "400", "--steps", "3", "--counts"]
    train = ["train", f"{tmp_path}/net.py:build", *cut, "--limit", "10", "--epochs", "1", "--out", tmp_path / "run"]
    done = run(*train, "--json")
    assert done.code == 0, done.err
    data = json.loads(done.out)["data"]
    assert (data["window_ms"], data["steps"], data["counts"]) == (400, 3, True)
    assert "[3, N, 2, 128, 128]" in data["input"]
    done = run(*train[:-2], "--out", tmp_path / "run", "--resume", "--window-ms", "200")
    assert done.code == 2
    assert "data window_ms was 400.0, is 200.0" in done.err


def test_data_that_are_not_cut_refuse_a_window(run, own, tmp_path):
    for option in (["--window-ms", "100"], ["--counts"]):
        done = run("train", f"{own}:build", "--data", "digits", *option, "--out", tmp_path / "run")
        assert done.code == 2
        assert f"digits has no {option[0][2:].replace('-', '_')}" in done.err
        assert not (tmp_path / "run").exists()


def test_files_are_fetched_only_where_it_is_asked_for(run, own, tmp_path, monkeypatch):
    import spikequant.cli.datasets as opened
    from spikequant.law.errors import DataError

    asked = []

    def load(name, *, download, **options):
        asked.append(download)
        raise DataError("stopped here")

    monkeypatch.setattr(opened, "load", load)
    for option in ([], ["--download"]):
        given = ["--data", "mnist", "--data-dir", tmp_path, *option, "--out", tmp_path / "run"]
        assert run("train", f"{own}:build", *given).code == 2
        assert run("quantize", f"{own}:build", *given, "--weight-bits", 8).code == 2
    assert asked == [False, False, True, True]

"""`spikequant demo`, shortened."""

from __future__ import annotations

import json

import pytest

import spikequant as sq
from spikequant.law.artifact import network_hash
from spikequant.models import ConvSNN
from spikequant.recipes import demo


@pytest.fixture
def short(monkeypatch):
    """A demo of one epoch on a few digits."""
    monkeypatch.setattr(demo, "FLOAT_EPOCHS", 1)
    monkeypatch.setattr(demo, "QAT_EPOCHS", 1)
    whole = demo.digit_batches

    def few(seed):
        return tuple([(x[:24], y[:24]) for x, y in list(part)[:2]] for part in whole(seed))

    monkeypatch.setattr(demo, "digit_batches", few)
    monkeypatch.setattr(demo._Watched, "set_epoch", lambda self, epoch: None)
    monkeypatch.setattr(demo, "digits_net", lambda: ConvSNN(size=8, channels=(4, 6), kernel=3, pool=1, steps=4))


def test_the_demo_writes_networks_plans_figures_and_exports(run, short, tmp_path):
    out = tmp_path / "new" / "folder"
    done = run("demo", "--out", out, "--json")
    facts = json.loads(done.out)
    assert done.code == 0
    assert done.err.splitlines()[0].startswith("1/4  train a spiking network")  # words go to standard error
    assert json.loads((out / "result.json").read_text()) == facts
    assert facts["version"] == sq.__version__
    assert [row["verify"]["differences"] for row in facts["rows"]] == [0, 0]
    assert all(row["verify"]["spikes"] > 100 for row in facts["rows"])
    for row, stem in zip(facts["rows"], ("w4u8", "w2u4"), strict=True):
        net = sq.IntNet.load(out / f"{stem}.spq")
        assert network_hash(net) == row["sha256"]
        assert sq.Plan.load(out / f"{stem}.toml").to_dict() == row["plan"] == net.metadata["plan"]
        assert (out / f"{stem}-vectors" / "manifest.json").is_file()
        assert run("verify", out / f"{stem}.spq").code == 0
    side = facts["rows"][0]["comparison"]
    assert side["quantized"]["flash_bytes"] < side["reference"]["flash_bytes"] / 4
    assert run("verify", out).code == 0  # all of them at once
    assert run("demo", "--out", out).code == 0  # an earlier demo is replaced
    listed = set(json.loads((out / "config.json").read_text())["files"])
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert there == listed | {"config.json"}


@pytest.fixture
def no_training(monkeypatch):
    """A demo that must not be run."""
    monkeypatch.setattr(demo, "fit", lambda *_a, **_k: pytest.fail("it trained before it looked at the folder"))


def test_the_demo_into_a_folder_that_cannot_be(run, no_training, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = run("demo", "--out", tmp_path / "file" / "demo", "--json")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"spikequant: cannot make or write the folder {tmp_path / 'file' / 'demo'}: ")
    assert done.err.rstrip().endswith("choose another --out")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_demo_leaves_another_run_alone(run, no_training, trained):
    done = run("demo", "--out", trained)
    assert (done.code, done.out) == (2, "")
    assert "holds a run of `train` (finished)" in done.err

"""`spikequant train`: what it leaves, Ctrl-C, and going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from tests.cli.conftest import OWN_NETWORK

import spikequant as sq
from spikequant.cli.networks import build_network, network_source
from spikequant.cli.weights import load_weights

SHORT = ["--data", "digits", "--limit", "150", "--lr", "0.01"]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(trained):
    config = json.loads((trained / "config.json").read_text())
    written = ["checkpoint.safetensors", "curves.svg", "metrics.jsonl", "result.json", "weights.safetensors"]
    assert sorted(config["files"]) == written
    assert {p.name for p in trained.iterdir()} == {*config["files"], "config.json"}
    assert (config["command"], config["state"], config["seed"]) == ("train", "finished", 0)
    assert config["data"]["samples"] == {"train": 300, "validation": 180, "test": 300}
    assert [line["epoch"] for line in lines(trained)] == [1, 2, 3, 4]
    assert lines(trained)[-1]["train_accuracy"] > 0.5


def test_the_figures_are_those_of_the_weights(trained, own):
    model = build_network(network_source(f"{own}:build"), seed=3)
    load_weights(model, trained)
    data = sq.data.load("digits")
    part = data.split("test")
    kept = type(part)(part.source, part.indices[[k * 360 // 300 for k in range(300)]])
    x = torch.from_numpy(kept.source.take(kept.indices)).float() / 16
    with torch.no_grad():
        sq.reset(model)
        right = (model.eval()(x).argmax(1).numpy() == kept.y).mean()
    assert right == pytest.approx(json.loads((trained / "result.json").read_text())["accuracy"])


def test_the_document(run, own, tmp_path):
    done = run("train", f"{own}:build", *SHORT, "--epochs", 1, "--out", tmp_path / "a", "--json")
    facts = json.loads(done.out)
    assert done.code == 0
    assert facts == json.loads((tmp_path / "a" / "result.json").read_text())
    assert len(facts["epochs"]) == 1
    assert "epoch 1/1: loss" in done.err
    assert "spikequant quantize" in done.err


def test_the_seed_decides(run, own, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("train", f"{own}:build", *SHORT, "--epochs", 1, "--seed", seed, "--out", tmp_path / name).code == 0
    a, b, c = (load_file(tmp_path / name / "weights.safetensors")["fc1.weight"] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_starting_from_weights_of_each_kind(run, own, trained, tmp_path):
    weights = load_file(trained / "weights.safetensors")
    torch.save(weights, tmp_path / "plain.pt")
    torch.save({"state_dict": weights, "epoch": 4}, tmp_path / "wrapped.pth")
    for start in (trained, trained / "weights.safetensors", tmp_path / "plain.pt", tmp_path / "wrapped.pth"):
        out = tmp_path / f"from {start.name}"
        done = run("train", f"{own}:build", *SHORT, "--epochs", 1, "--weights", start, "--out", out, "--json")
        assert json.loads(done.out)["epochs"][0]["loss"] < 1.6  # untrained: 2.3


@pytest.mark.parametrize("after", [0, 1, 2])
def test_ctrl_c_and_resume_give_the_weights_of_an_uninterrupted_run(run, own, tmp_path, monkeypatch, after):
    from spikequant.cli.progress import WatchedBatches

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["train", f"{own}:build", *SHORT, "--epochs", 3]
    assert run(*arguments, "--out", whole).code == 0
    seen = WatchedBatches.__iter__

    def interrupted(self):
        for k, batch in enumerate(seen(self)):
            if cut.exists() and k == 1 and len(self) == 3 and epochs_done(cut) == after:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(WatchedBatches, "__iter__", interrupted)
        done = run(*arguments, "--out", cut)
    assert done.code == 130
    assert (f"{after} of 3 epochs are kept in {cut}" if after else "no epoch was finished") in done.err
    assert done.err.rstrip().endswith("--resume")
    assert epochs_done(cut) == after
    if after:
        assert json.loads((cut / "config.json").read_text())["state"] == "interrupted"
        assert (cut / "weights.safetensors").is_file()
        assert "--resume" in run(*arguments, "--out", cut).err  # refused, and told what to do
        assert run(*arguments, "--out", cut, "--resume", "--lr", "0.02").code == 2
    assert run(*arguments, "--out", cut, "--resume").code == 0
    a, b = (load_file(folder / "weights.safetensors") for folder in (whole, cut))
    assert all(torch.equal(a[key], b[key]) for key in a)
    for x, y in zip(lines(whole), lines(cut), strict=True):
        assert {k: v for k, v in x.items() if k != "seconds"} == {k: v for k, v in y.items() if k != "seconds"}


def epochs_done(folder):
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def test_resuming_what_is_finished_changes_nothing(run, own, tmp_path):
    arguments = ["train", f"{own}:build", *SHORT, "--epochs", 1, "--out", tmp_path / "a"]
    run(*arguments)
    before = (tmp_path / "a" / "weights.safetensors").read_bytes()
    assert run(*arguments, "--resume").code == 0
    assert (tmp_path / "a" / "weights.safetensors").read_bytes() == before
    done = run(*arguments, "--resume", "--seed", 1)
    assert done.code == 2
    assert "seed was 0, is 1" in done.err


def test_overwrite_replaces_the_run_and_nothing_else(run, own, tmp_path):
    out = tmp_path / "a"
    arguments = ["train", f"{own}:build", *SHORT, "--epochs", 1, "--out", out]
    run(*arguments)
    (out / "notes.txt").write_text("mine")
    assert run(*arguments).code == 2
    assert run(*arguments, "--overwrite", "--seed", 5).code == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert json.loads((out / "config.json").read_text())["seed"] == 5


def test_a_folder_with_files_of_our_names_is_left_alone(run, own, tmp_path):
    (tmp_path / "weights.safetensors").write_text("mine")
    done = run("train", f"{own}:build", *SHORT, "--out", tmp_path)
    assert done.code == 2
    assert "holds weights.safetensors, not written by a run" in done.err


def test_a_full_disk_leaves_no_half_written_file(run, own, tmp_path, monkeypatch):
    import errno

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "a"
    assert run("train", f"{own}:build", *SHORT, "--epochs", 1, "--out", out).code == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    done = run("train", f"{own}:build", *SHORT, "--epochs", 1, "--out", tmp_path / "b")
    assert done.code == 2
    assert "No space left on device" in done.err
    assert not (tmp_path / "b").exists()
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def heed_interrupts():
    """Ctrl-C counts again: a shell that starts the tests in the background has it ignored by all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_real_ctrl_c_in_a_process_of_its_own(tmp_path):
    file, out, whole = tmp_path / "net.py", tmp_path / "cut", tmp_path / "whole"
    slow = OWN_NETWORK.replace("        count = 0\n", "        time.sleep(0.05 * self.training)\n        count = 0\n")
    file.write_text(slow.replace("import torch\n", "import time\nimport torch\n"))
    words = [sys.executable, "-m", "spikequant", "train", "net.py:build", *SHORT, "--epochs", "4"]
    process = subprocess.Popen(
        [*words, "--out", "cut"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while epochs_done(out) < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Go on with\n  spikequant train net.py:build" in err
    assert 1 <= epochs_done(out) < 4
    again = subprocess.run([*words, "--out", "cut", "--resume"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "\x1b" not in again.stdout + again.stderr  # in a pipe no colours
    subprocess.run([*words, "--out", "whole"], cwd=tmp_path, check=True, capture_output=True)
    a, b = (load_file(folder / "weights.safetensors") for folder in (whole, out))
    assert all(torch.equal(a[key], b[key]) for key in a)

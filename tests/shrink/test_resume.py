"""A search that was cut off goes on where it was, and ends with the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from tests.shrink.nets import batches, trained
from tests.shrink.test_shrink import figures, same, weights

import spikequant as sq

OPTIONS = {
    "max_drop": 5.0, "epochs": 3, "lr": 0.01, "max_trainings": 1, "quiet": True,
    "weight_bits": (8, 3, 1), "membrane_bits": (8, 3),
}  # fmt: skip


@pytest.fixture(scope="module")
def net():
    return trained()


def search(net, folder=None, **options):
    return sq.shrink(net, batches(), validation=batches(1), checkpoint_folder=folder, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def whole(net):
    return search(net)


class Out(Exception):
    """The light went out."""


def out_after(count):
    seen = []

    def stop(trial):
        seen.append(trial)
        if len(seen) == count:
            raise Out

    return stop


@pytest.mark.parametrize("count", [1, 5])
def test_trials_are_not_run_again(net, whole, tmp_path, count):
    with pytest.raises(Out):
        search(net, tmp_path, on_step=out_after(count))
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == [t.name for t in whole.trials[:count]]
    rest = []
    result = search(net, tmp_path, on_step=rest.append)
    assert [t.name for t in rest] == [t.name for t in whole.trials[count:]]
    assert figures(result) == figures(whole)
    assert same(weights(result.model), weights(whole.model))
    assert [t.seconds for t in result.trials[:count]] == [json.loads(line)["seconds"] for line in lines]


def test_the_result_is_rebuilt_from_its_file(net, whole, tmp_path):
    search(net, tmp_path)
    seen = []
    again = search(net, tmp_path, on_step=seen.append)
    assert seen == []
    assert figures(again) == figures(whole)
    assert same(weights(again.model), weights(whole.model))
    assert again.verified == whole.verified
    assert not list(tmp_path.glob("*.fit.safetensors"))
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".jsonl", ".safetensors"}


def interrupting(net, at, **options):
    """Ctrl-C in the training of the first network, in the given epoch."""

    rows = batches()

    class Rows:
        def __len__(self):
            return len(rows)

        def set_epoch(self, epoch):
            rows.set_epoch(epoch)
            if epoch == at:
                raise KeyboardInterrupt

        def __iter__(self):
            return iter(rows)

    return sq.shrink(net, Rows(), validation=batches(1), **{**OPTIONS, **options})


def test_ctrl_c_returns_the_best_so_far(net, whole):
    result = interrupting(net, 1)
    assert result.interrupted
    assert result.met
    assert figures(result) == [f for f in figures(whole) if f["scheme"] == "ptq"]
    assert any("interrupted" in w for w in result.words)
    assert result.verified.differences == 0


def test_a_training_that_was_cut_off_goes_on(net, whole, tmp_path):
    first = interrupting(net, 2, checkpoint_folder=tmp_path)
    assert first.interrupted
    assert len(list(tmp_path.glob("*.fit.safetensors"))) == 1
    result = search(net, tmp_path)
    assert not result.interrupted
    assert figures(result) == figures(whole)
    assert same(weights(result.model), weights(whole.model))


def test_ctrl_c_before_anything_is_done_is_raised(net):
    class Pressed(list):
        def __iter__(self):
            if threading.current_thread().name == "never":
                yield None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sq.shrink(net, Pressed(batches()), validation=batches(1), example_input=next(iter(batches()))[0], quiet=True)


def test_another_limit_judges_the_kept_trials_anew(net, whole, tmp_path):
    search(net, tmp_path, max_trainings=0)
    seen = []
    result = search(net, tmp_path, max_drop=-60.0, max_trainings=0, on_step=seen.append)
    assert seen == []
    assert not result.met


def test_a_folder_of_another_run_is_refused(net, tmp_path):
    search(net, tmp_path, epochs=0)
    other = trained(epochs=1)
    with pytest.raises(sq.ArtifactError, match="had another network and data; choose another folder"):
        search(other, tmp_path, epochs=0)
    with pytest.raises(sq.ArtifactError, match="had another seed"):
        search(net, tmp_path, epochs=0, seed=3)
    anew = search(other, tmp_path, epochs=0, resume=False)
    assert anew.trials
    (tmp_path / "trials.jsonl").write_text("{broken")
    with pytest.raises(sq.ArtifactError, match="does not hold an earlier run"):
        search(other, tmp_path, epochs=0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(sq.ArtifactError, match="cannot use the folder"):
        search(other, tmp_path / "file", epochs=0)


def test_files_of_others_are_left_alone(net, tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"1")
    search(net, tmp_path, epochs=0, resume=False)
    assert (tmp_path / "mine.safetensors").read_bytes() == b"1"


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.shrink.nets import trained
from tests.shrink.test_resume import search
print("ready", flush=True)
search(trained(), sys.argv[1], on_step=lambda t: print(t.name, flush=True))
"""


def test_after_a_kill_the_result_is_the_same(whole, net, tmp_path):
    """Not a tidy exception: the process is killed in the middle of its work."""
    root = Path(__file__).resolve().parents[2]
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
    )
    assert run.stdout is not None
    seen = [next(run.stdout).strip() for _ in range(4)]
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    assert seen == ["ready", *(t.name for t in whole.trials[:3])]
    result = search(net, tmp_path)
    assert figures(result) == figures(whole)
    assert same(weights(result.model), weights(whole.model))


def test_the_random_state_of_the_caller_stays(net):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    search(net, max_trainings=1, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)

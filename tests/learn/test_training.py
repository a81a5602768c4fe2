"""Training resumes exactly, also after SIGKILL; its files refuse what they do not hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.learn.networks import FOUR, images, tiny

from spikequant import learn
from spikequant.law.errors import ArtifactError, DataError, PlanError
from spikequant.learn.config import Precision

Y = np.arange(12) % 3


def network(precision: Precision = FOUR, **changes: Any) -> learn.Network:
    return learn.Network(tiny(**changes), precision, engine="python")


OWN = FOUR.replace(threshold_reach_mv=3.0, common_threshold=True)


def same(a: learn.Network, b: learn.Network) -> bool:
    numbers = (a.seen, a.common) == (b.seen, b.common)
    return numbers and np.array_equal(a.weights, b.weights) and np.array_equal(a.adaptive, b.adaptive)


@pytest.mark.parametrize("precision", [FOUR, OWN, Precision()])
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_training_that_was_cut_off_gives_the_same_bits(tmp_path: Path, precision: Precision, cut: int) -> None:
    whole, seen = network(precision), []
    full = learn.train(whole, images(12), Y, epochs=2, chunk=5, quiet=True)
    assert [chunk.seen for chunk in full.chunks] == [5, 10, 12, 17, 22, 24]

    def stop(chunk: learn.Chunk) -> None:
        seen.append(chunk)
        if len(seen) == cut:
            raise KeyboardInterrupt

    file = tmp_path / "run" / "net.safetensors"
    first = network(precision)
    part = learn.train(first, images(12), Y, epochs=2, chunk=5, quiet=True, checkpoint=file, on_chunk=stop)
    assert part.interrupted
    second = network(precision)
    rest = learn.train(second, images(12), Y, epochs=2, chunk=5, quiet=True, checkpoint=file)
    assert same(second, whole)
    assert not np.array_equal(first.weights, second.weights)
    assert [(c.seen, c.spikes, c.accuracy) for c in rest.chunks] == [
        (c.seen, c.spikes, c.accuracy) for c in full.chunks
    ]
    assert sum(c.spikes for c in full.chunks) > 3, "equality of silent networks proves nothing"


def test_one_image_at_a_time_is_the_same_as_many() -> None:
    whole, single = network(), network()
    whole.learn(images(4))
    for image in images(4):
        single.learn(image[None])
    assert same(whole, single)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.learn.networks import FOUR, images, tiny
from spikequant import learn
net = learn.Network(tiny(), FOUR, engine="python")
learn.train(net, images(12), epochs=40, chunk=1, quiet=True, checkpoint={file!r})
"""


def test_a_killed_training_resumes_to_the_same_bits(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    root = str(Path(__file__).resolve().parents[2])
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(root=root, file=str(file))], env=dict(os.environ))
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    time.sleep(0.15)
    child.send_signal(signal.SIGKILL)
    child.wait()
    reached = learn.load_network(file, engine="python").seen
    assert 0 < reached < 480
    resumed, whole = network(), network()
    learn.train(resumed, images(12), epochs=40, chunk=40, quiet=True, checkpoint=file)
    learn.train(whole, images(12), epochs=40, chunk=100, quiet=True)
    assert same(resumed, whole)


def test_each_pass_has_an_order_of_its_own() -> None:
    first, second = (learn.epoch_order(100, seed=1, epoch=e) for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)


def test_a_network_file_keeps_everything(tmp_path: Path) -> None:
    net = network()
    net.learn(images(3))
    learn.save_network(net, tmp_path / "n.safetensors")
    again = learn.load_network(tmp_path / "n.safetensors", engine="python")
    assert (again.config, again.precision) == (net.config, net.precision)
    assert same(net, again)
    assert np.array_equal(net.learn(images(2)).counts, again.learn(images(2)).counts)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "n.safetensors"
    with pytest.raises(ArtifactError, match="is not a file"):
        learn.load_network(file)
    learn.train(network(), images(2), epochs=1, quiet=True, checkpoint=file)
    with pytest.raises(ArtifactError, match="holds another network: .*resume=False"):
        learn.train(network(seed=4), images(2), epochs=1, quiet=True, checkpoint=file)
    with pytest.raises(ArtifactError, match="other labels"):
        learn.train(network(), images(2), [0, 1], epochs=2, quiet=True, checkpoint=file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="is not a network of learn"):
        learn.load_network(file)


def test_wrong_data_are_refused() -> None:
    net = network()
    with pytest.raises(DataError, match="11 pixels; this network takes 12"):
        net.learn(np.zeros((2, 11), np.uint8))
    with pytest.raises(DataError, match="expected whole intensities 0 to 16"):
        net.learn(np.zeros((2, 12)))
    with pytest.raises(DataError, match="intensities from 0 to 17"):
        net.infer(np.full((2, 12), 17) * (np.arange(12) > 5))
    with pytest.raises(DataError, match="at least one image"):
        net.infer(np.zeros((0, 12), np.uint8))
    with pytest.raises(DataError, match="expected 2 labels"):
        learn.train(net, images(2), [1], quiet=True)
    with pytest.raises(DataError, match="outside the random streams"):
        net.infer(images(2), first=2**32 - 1)


@pytest.mark.parametrize("wrong", [-1, 10**12])
def test_labels_that_are_no_classes_are_refused(wrong: int) -> None:
    network = learn.Network(tiny())
    x = images(4)
    with pytest.raises(DataError, match="expected classes 0 to"):
        learn.train(network, x, np.array([0, 1, 2, wrong]), quiet=True)


@pytest.mark.parametrize("field", ["neurons", "steps", "refractory", "seed", "levels", "inputs"])
def test_counts_are_whole_numbers(field: str) -> None:
    with pytest.raises(PlanError, match=f"{field} is 2.5; expected a whole number"):
        learn.DiehlCook(**{field: 2.5})


def test_a_checkpoint_knows_its_images(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    learn.train(network(), images(12), Y, chunk=5, quiet=True, checkpoint=file)
    others = images(12).copy()
    others[11, 0] ^= 1
    with pytest.raises(ArtifactError, match="has learned from other images; delete it, pass resume=False"):
        learn.train(network(), others, Y, epochs=2, chunk=5, quiet=True, checkpoint=file)
    learn.train(network(), others, Y, chunk=5, quiet=True, checkpoint=file, resume=False)

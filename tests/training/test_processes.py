"""Two processes train as one does: the same steps, figures of all, files of the first, exact resume."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import spikequant as sq
from spikequant.training.processes import Processes

PROGRAM = """
import json, os, sys
from pathlib import Path
import numpy as np, torch, torch.distributed as dist
from torch import nn
import spikequant as sq
from spikequant.data import ArrayBatches
from spikequant.nn import LIF
from spikequant.training import LevelPull, TemporalLoss, WeightAverage

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1, self.fc2 = nn.Linear(8, 12), LIF(leak=0.75), nn.Linear(12, 2)
    def forward(self, x):
        current = self.fc1(x)
        return self.fc2(self.lif1(current.unsqueeze(0).expand(4, *current.shape))).mean(0)

torch.set_num_threads(1)
out, stop = Path(sys.argv[1]), int(sys.argv[2])
if "WORLD_SIZE" in os.environ:
    dist.init_process_group("gloo")
rank = int(os.environ.get("RANK", 0))
rng = np.random.default_rng(0)
x = rng.normal(size=(51, 8)).astype(np.float32)
y = (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64)
batches = ArrayBatches(x, y, batch_size=10, shuffle=True, seed=1)  # the last batch is a single sample
torch.manual_seed(rank)  # the weights of the first process count
net = Net()
plan = sq.Plan.uniform(weight_bits=3, weight_quantizer="lsq", membrane_bits=6, membrane_rounding="stochastic")
sq.quantize_(net, plan, torch.from_numpy(x), quiet=True)
seen = []
def on_epoch(epoch):
    seen.append(epoch.epoch)
    if epoch.epoch == stop:
        os._exit(7)
done = sq.fit(net, batches, epochs=3, lr=0.004, quiet=True, validation=batches, checkpoint=out / "checkpoint",
              terms=[LevelPull(0.01), TemporalLoss(weight=0.1)], routines=[WeightAverage(0.5)], on_epoch=on_epoch)
torch.save({"weights": net.state_dict(), "epochs": [e.to_dict() for e in done.epochs], "seen": seen}, out / f"{rank}.pt")
"""


def start(out: Path, processes: int, stop: int = 0) -> None:
    out.mkdir(exist_ok=True)
    program = out / "program.py"
    program.write_text(PROGRAM)
    source = str(Path(__file__).resolve().parents[2] / "src")
    env = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        env["MASTER_PORT"] = str(probe.getsockname()[1])
    ranks = [{"RANK": str(k), "WORLD_SIZE": str(processes)} for k in range(processes)] if processes > 1 else [{}]
    command = [sys.executable, str(program), str(out), str(stop)]
    running = [
        subprocess.Popen(command, env={**env, **rank}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in ranks
    ]
    first = running[0].communicate(timeout=300)
    if stop:
        assert running[0].returncode == 7, first[1]
        for other in running[1:]:
            other.kill()
            other.communicate()
        return
    answers = [first, *(other.communicate(timeout=300) for other in running[1:])]
    for process, (_, errors) in zip(running, answers, strict=True):
        assert process.returncode == 0, errors[-2000:]


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch has no gloo here")
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    start(tmp_path / "one", 1)
    start(tmp_path / "two", 2)
    one = torch.load(tmp_path / "one" / "0.pt")
    first, second = (torch.load(tmp_path / "two" / f"{rank}.pt") for rank in (0, 1))
    for name, value in one["weights"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(first["weights"][name], second["weights"][name])
            torch.testing.assert_close(first["weights"][name], value, rtol=1e-4, atol=1e-5)
    for alone, together, other in zip(one["epochs"], first["epochs"], second["epochs"], strict=True):
        assert together["samples"] == other["samples"] == alone["samples"] == 51
        assert together["loss"] == other["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert together["accuracy"] == other["accuracy"] == pytest.approx(alone["accuracy"], abs=0.03)
        assert together["validation"] == other["validation"] == pytest.approx(alone["validation"], abs=0.03)
        assert together["terms"] == other["terms"]
        assert together["terms"] == pytest.approx(alone["terms"], rel=1e-4)
    assert (first["seen"], second["seen"]) == ([1, 2, 3], [])
    assert (tmp_path / "two" / "checkpoint").exists()

    start(tmp_path / "cut", 2, stop=2)
    start(tmp_path / "cut", 2)
    again = torch.load(tmp_path / "cut" / "1.pt")
    assert all(torch.equal(v, first["weights"][k]) for k, v in again["weights"].items() if isinstance(v, torch.Tensor))
    with pytest.raises(sq.ArtifactError, match="was written by 2 processes, these are 1"):
        start_here(tmp_path / "cut" / "checkpoint")


def start_here(path: Path) -> None:
    """Any model: the number of processes is compared first."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    batch = [(torch.ones(2, 2), torch.tensor([0, 1]))]
    sq.fit(net, batch, epochs=1, checkpoint=path, quiet=True)


def test_one_process_alone_does_nothing_special() -> None:
    alone = Processes.current()
    x, y = torch.ones(3, 2), torch.tensor([0, 1, 0])
    share = alone.share(x, y, [])
    assert alone == Processes(0, 1)
    assert share.x is x
    assert share.part == 1.0

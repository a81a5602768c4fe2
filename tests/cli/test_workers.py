"""`spikequant train` under torchrun: two processes, one run folder, the figures of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from safetensors.torch import load_file

from spikequant.cli.workers import joined

SOURCE = Path(__file__).resolve().parents[2] / "src"
WORDS = [
    "-m",
    "spikequant",
    "train",
    "net.py:build",
    "--data",
    "digits",
    "--limit",
    "60",
    "--epochs",
    "2",
    "--lr",
    "0.01",
]
NET = """
from torch import nn
from spikequant.nn import LIF

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1, self.fc2 = nn.Linear(64, 16), LIF(leak=0.5), nn.Linear(16, 10)

    def forward(self, x):
        current = self.fc1(x.flatten(1))
        return self.fc2(self.lif1(current.unsqueeze(0).expand(4, *current.shape))).mean(0)

def build():
    return Net()
"""


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch has no gloo here")
def test_two_processes_leave_one_run(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    starts = {"one": [], "two": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}
    for out, start in starts.items():
        command = [sys.executable, *start, *WORDS, "--out", out]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("Trained: ") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"net.py", "one", "two"} | {"__pycache__"} & set(
        os.listdir(tmp_path)
    )
    one, two = ([json.loads(t) for t in (tmp_path / k / "metrics.jsonl").read_text().splitlines()] for k in starts)
    for alone, together in zip(one, two, strict=True):
        for name in ("samples", "loss", "train_accuracy", "validation_accuracy"):
            assert together[name] == pytest.approx(alone[name], rel=1e-4), name
    a, b = (load_file(tmp_path / out / "weights.safetensors") for out in starts)
    assert all((a[key] - b[key]).abs().max() < 1e-4 for key in a)


def test_one_process_writes_where_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(tmp_path / "a") as mine:
        assert mine == tmp_path / "a"

"""A command line in this process, small networks, and short data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.cli import main
from spikequant.nn import LIF

OWN_NETWORK = '''
"""A network as a person writes it."""
import torch
from torch import nn

import spikequant as sq


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 24)
        self.lif1 = sq.nn.LIF(leak=0.75, step_mode="s")
        self.fc2 = nn.Linear(24, 10)
        self.lif2 = sq.nn.LIF(leak=0.75, reset="subtract", step_mode="s")

    def forward(self, x):
        x = x.flatten(1)
        count = 0
        for t in range(4):
            count = count + self.lif2(self.fc2(self.lif1(self.fc1(x))))
        return count


def build():
    return Net()
'''


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    """Run a command; whatever happens there is no traceback, and a code that is one of four."""

    def go(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        assert caught.value.code in (0, 1, 2, 130)
        return Ended(caught.value.code, captured.out, captured.err)

    return go


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Path:
    """A small network file."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), LIF(), nn.Linear(5, 3), LIF())
    with torch.no_grad():
        net[0].weight.normal_(0.3, 0.4)
        net[2].weight.normal_(0.3, 0.4)
    x = (torch.rand(8, 4, 6) < 0.5).float()
    sq.quantize_(net, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    sq.freeze(net)
    path = tmp_path_factory.mktemp("net") / "net.spq"
    sq.lower(net, x).save(path)
    return path


@pytest.fixture(scope="session")
def own(tmp_path_factory) -> Path:
    """A file with a network of a person's own for the digits."""
    path = tmp_path_factory.mktemp("own") / "net.py"
    path.write_text(OWN_NETWORK)
    return path


@pytest.fixture(scope="session")
def trained(own, tmp_path_factory) -> Path:
    """A run folder of `train` on some digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.raises(SystemExit) as caught:
        main(["train", f"{own}:build", "--data", "digits", "--epochs", "4", "--lr", "0.01", "--limit", "300",
              "--out", str(folder)])  # fmt: skip
    assert caught.value.code == 0
    return folder

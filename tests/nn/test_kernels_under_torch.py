"""Fused neuron kernels under what torch puts around a model: autocast, DistributedDataParallel, copies while training."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.nn.test_kernels import equal, network, trained

from spikequant.nn import LIF, kernels
from spikequant.readers.compiler import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C compiler")


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(half):
    net, x = network(LIF(leak=0.75, reset="subtract", learn=("threshold",)), rounding="stochastic")
    wanted = trained(net, x, "fused")
    for how in ("plain", "fused"):
        with torch.autocast("cpu", half):
            found = trained(net, x, how)
        equal(wanted, found)
    assert kernels.used(net) == {"1": "fused"}
    assert float(wanted[0].mean()) > 0.01


def test_a_copy_between_steps_trains_on_alike():
    net, x = network(LIF(leak=0.75, learn=("threshold",)))
    trained(net, x, "fused")
    other = copy.deepcopy(net)
    one, two = trained(net, x, "fused"), trained(other, x, "fused")
    assert torch.equal(one[0], two[0])
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


PROGRAM = """
import os, sys
import torch, torch.distributed as dist
from spikequant.nn import LIF, kernels
from tests.nn.test_kernels import network

torch.set_num_threads(1)
net, x = network(LIF(leak=0.75, reset="subtract", learn=("threshold",)))
alone = "WORLD_SIZE" not in os.environ
if not alone:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    x = x[:, 2 * rank : 2 * rank + 2]
run = net if alone else torch.nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(3):
    optimizer.zero_grad()
    y = run(x)
    (y.sum(0) - 2).square().mean().backward()
    optimizer.step()
assert kernels.used(net) == {"1": "fused"}, kernels.used(net)
assert 0.01 < float(y.detach().mean()) < 0.9
if alone or rank == 0:
    torch.save(net.state_dict(), sys.argv[1])
"""


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch has no gloo")
def test_two_processes_learn_what_one_learns(tmp_path):
    root = Path(__file__).resolve().parents[2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(root), str(root / "src")])
    common = {**os.environ, "PYTHONPATH": paths, "SPIKEQUANT_KERNELS": "fused"}
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    settings = [{}, *({**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2))]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / f"{min(k, 1)}.pt")], env={**common, **setting},
            stderr=subprocess.PIPE, text=True,
        )
        for k, setting in enumerate(settings)
    ]  # fmt: skip
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-2000:]
    one, two = (torch.load(tmp_path / f"{k}.pt", weights_only=True) for k in range(2))
    start = network(LIF(leak=0.75, reset="subtract", learn=("threshold",)))[0].state_dict()
    assert any(not torch.equal(start[name], value) for name, value in one.items())
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )

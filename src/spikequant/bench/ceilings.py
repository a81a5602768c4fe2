"""What the machine can do at most, what a workload must do at least, and the share that was reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikequant.bench import ours
from spikequant.bench.parts import Timed
from spikequant.bench.workloads import Workload
from spikequant.nn.layer import NeuronLayer

COPIED_FLOATS = 32 * 2**20
PRODUCT_SIDE = 1024


@dataclass(frozen=True)
class Ceilings:
    """Measured: bytes a second of a large copy (read and written), multiply-adds a second of a float32 product."""

    bytes_per_second: float
    macs_per_second: float


@dataclass(frozen=True)
class Needs:
    """Counted: bytes and multiply-adds of one forward pass, dense.

    Bytes: every layer's float32 input read and output written once; a neuron's currents read and spikes written once,
    its state never leaving the processor.
    """

    bytes: float
    macs: float

    def seconds(self, ceilings: Ceilings) -> float:
        """The least time: products at the product ceiling, or data at the copy ceiling, whichever takes longer."""
        return max(self.bytes / ceilings.bytes_per_second, self.macs / ceilings.macs_per_second)


def ceilings() -> Ceilings:
    """Measure the machine, with as many threads as torch uses."""
    source = torch.zeros(COPIED_FLOATS)
    target = torch.empty_like(source)
    a, b = torch.rand(PRODUCT_SIDE, PRODUCT_SIDE), torch.rand(PRODUCT_SIDE, PRODUCT_SIDE)
    copied = _best(lambda: target.copy_(source), 8)
    multiplied = _best(lambda: torch.mm(a, b), 20)
    return Ceilings(2 * 4 * COPIED_FLOATS / copied, PRODUCT_SIDE**3 / multiplied)


def needs(workload: Workload, x: Tensor) -> Needs:
    """Count on the float network."""
    net = Timed(workload.build(ours.float_parts()), ours.float_parts())
    moved, macs, hooks = [0.0], [0.0], []

    def count(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        moved[0] += 4.0 * (given[0].numel() + out.numel())
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            macs[0] += out.numel() * layer.weight[0].numel()

    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.MaxPool2d, NeuronLayer)):
            hooks.append(layer.register_forward_hook(count))
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return Needs(moved[0], macs[0])


def _best(call: Callable[[], object], rounds: int) -> float:
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)

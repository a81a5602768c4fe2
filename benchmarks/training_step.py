"""Training step of a quantized network against the same float network in plain torch.

The plain network writes its LIF by hand, as a user would: no module of ours in it.  Both
run interleaved in one process; medians with minimum and maximum, and their ratio.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spikequant as sq
from spikequant.models import mnist_net
from spikequant.nn import kernels


class Atan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + (torch.pi * u) ** 2)


class PlainLIF(nn.Module):
    """``v = v / 2 + x``; fire at 1; hard reset, detached."""

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros_like(x[0])
        spikes = []
        for current in x:
            v = 0.5 * v + current
            s = Atan.apply(v - 1.0)
            v = v * (1.0 - s.detach())
            spikes.append(s)
        return torch.stack(spikes)


def plain_net() -> nn.Module:
    model = mnist_net()
    model.lif1, model.lif2 = PlainLIF(), PlainLIF()
    return model


def stepper(model: nn.Module, x: Tensor, y: Tensor, how: str = "auto") -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with kernels.using(how):
            F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(rounds + 2):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if round_number >= 2:
                times[name].append(time.perf_counter() - started)
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    torch.manual_seed(0)
    x, y = torch.rand(given.batch, 1, 28, 28), torch.randint(0, 10, (given.batch,))
    steps = {
        "float, plain torch": stepper(plain_net(), x, y),
        "float, spikequant.nn": stepper(mnist_net(), x, y),
        "float, spikequant.nn, fused neurons on request": stepper(mnist_net(), x, y, "all"),
    }
    for name, options in {
        "QAT W8/U8 uniform": {"weight_bits": 8, "membrane_bits": 8},
        "QAT W4/U8 uniform": {"weight_bits": 4, "membrane_bits": 8},
        "QAT W2/U4 LSQ": {"weight_bits": 2, "membrane_bits": 4, "weight_quantizer": "lsq"},
    }.items():
        model = mnist_net()
        plan = sq.Plan.uniform(membrane_rounding="half_even", **options)
        sq.quantize_(model, plan, x[:4], quiet=True)
        steps[name] = stepper(model, x, y)
        if name == "QAT W8/U8 uniform":
            steps[f"{name}, neurons in the plain loop"] = stepper(copy.deepcopy(model), x, y, "plain")
    times = measure(steps, given.rounds)
    base = statistics.median(times["float, plain torch"])
    print("| network | median ms | min | max | ratio |\n| --- | --- | --- | --- | --- |")
    for name, values in times.items():
        middle = statistics.median(values)
        print(
            f"| {name} | {1e3 * middle:.0f} | {1e3 * min(values):.0f} | {1e3 * max(values):.0f} | {middle / base:.2f} |"
        )


if __name__ == "__main__":
    main()

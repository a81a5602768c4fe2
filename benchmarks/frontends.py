"""What a training step of snnTorch's tutorial network costs in the user's own loop, float against quantized.

    python benchmarks/frontends.py [--batch 128] [--steps 8] [--rounds 12]

The network and loop of tutorial 6: two convolutions, hidden states, `utils.reset`, a static image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import snntorch as snn
import torch
from snntorch import functional, surrogate, utils
from torch import Tensor, nn

import spikequant as sq


def tutorial_net() -> nn.Sequential:
    """The network of tutorial 6."""
    torch.manual_seed(0)
    options = {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid(slope=25), "init_hidden": True}
    return nn.Sequential(
        nn.Conv2d(1, 12, 5), nn.MaxPool2d(2), snn.Leaky(**options),
        nn.Conv2d(12, 64, 5), nn.MaxPool2d(2), snn.Leaky(**options),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 10), snn.Leaky(**options, output=True),
    )  # fmt: skip


def forward_pass(net: nn.Module, steps: int, data: Tensor) -> Tensor:
    """The tutorial's loop."""
    utils.reset(net)
    return torch.stack([net(data)[0] for _ in range(steps)])


def stepper(net: nn.Module, data: Tensor, target: Tensor, steps: int) -> Callable[[], float]:
    """One training step, timed."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loss_of = functional.ce_rate_loss()

    def step() -> float:
        started = time.perf_counter()
        loss = loss_of(forward_pass(net, steps, data), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - started

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    data, target = torch.rand(given.batch, 1, 28, 28), torch.randint(0, 10, (given.batch,))
    real, quantized = tutorial_net(), tutorial_net()
    sq.quantize_(quantized, sq.Plan.uniform(weight_bits=4, membrane_bits=8), data, quiet=True)
    timed = {"float, snnTorch": real, "W4/U8, spikequant": quantized}
    steppers = {name: stepper(net, data, target, given.steps) for name, net in timed.items()}
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(given.rounds + 2):
        for name, step in steppers.items():
            times[name].append(step())
    base = statistics.median(times["float, snnTorch"][2:])
    print("| network | median ms | min | max | ratio |\n|---|--:|--:|--:|--:|")
    for name, seconds in times.items():
        ms = [1000 * s for s in seconds[2:]]
        print(f"| {name} | {statistics.median(ms):.0f} | {min(ms):.0f} | {max(ms):.0f} | "
              f"{statistics.median(ms) / base / 1000:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()

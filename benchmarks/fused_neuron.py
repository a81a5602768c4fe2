"""One quantized LIF layer over time: fused kernels against the plain loop, torch.compile and the speed of memory.

All rows run interleaved in one process on the same currents; medians with minimum and maximum.  The float LIF is
written by hand in plain torch, as a user would.  The copy ceiling reads the input once and writes as much once, into
memory that is there already.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from training_step import Atan

import spikequant as sq
from spikequant.nn import LIF, kernels
from spikequant.nn.memory import POOL
from spikequant.nn.over_time import OverTime
from spikequant.readers.numba_ import numba_missing

PAGE = Path(__file__).with_name("fused_neuron.md")
CHANNELS, SIDE = 75, 16
PAGE_TEXT = """# One LIF layer over time: the fused kernel

T = {steps}, {neurons:,} neurons, membrane U8 (float: float32), gradients towards the input and the threshold.
Goals: fused forward at most 0.1 of the eager float LIF and at least 0.8 of the copy ceiling; forward + backward at most
0.12 of the eager quantized LIF.

{table}

Firing rates: {rates}. Spikes of the quantized rows are equal in every bit
(`tests/conformance/test_fused_equals_plain.py`).

Command: `python benchmarks/fused_neuron.py --rounds {rounds} --write`.
Machine: {machine}, {threads} threads, no GPU, torch {torch}; commit {commit}.
"""


def float_lif(x: Tensor) -> Tensor:
    """``v = 3/4 v + x``; fire at 1; hard reset."""
    v = torch.zeros_like(x[0])
    spikes = []
    for current in x:
        v = 0.75 * v + current
        s = Atan.apply(v - 1.0)
        v = v * (1.0 - s)
        spikes.append(s)
    return torch.stack(spikes)


def quantized_lif() -> nn.Module:
    """A LIF layer in U8 behind a synapse that gives it its scale."""
    net = nn.Sequential(OverTime(nn.Conv2d(2, CHANNELS, 1)), LIF(leak=0.75, learn=("threshold",)))
    plan = sq.Plan.uniform(weight_bits=8, membrane_bits=8, membrane_rounding="half_even")
    sq.quantize_(net, plan, (torch.rand(2, 4, 2, SIDE, SIDE) < 0.4).float(), quiet=True)
    return net[1]


def chosen(how: str) -> contextlib.AbstractContextManager[None]:
    """The plain loop, or the fused kernel, of C or by numba."""
    return kernels.using("fused", engine="numba") if how == "numba" else kernels.using(how)


def rows(steps: int, batch: int, compiled: bool) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """What is timed, by name, and the firing rate of each kind."""
    torch.manual_seed(0)
    lif = quantized_lif()
    with torch.no_grad():
        theta = lif.integers().params["theta"].mean()
        drive = torch.randn(steps, batch, CHANNELS, SIDE, SIDE) * 0.5 + 0.2
        codes = (drive * theta.float()).round()
    up, copy = torch.randn_like(drive), torch.empty_like(drive)

    def forward(run: Callable[[Tensor], Tensor], x: Tensor, how: str) -> Callable[[], object]:
        def go() -> object:
            with torch.no_grad(), chosen(how):
                return run(x)

        return go

    def both(run: Callable[[Tensor], Tensor], x: Tensor, how: str) -> Callable[[], object]:
        leaf = x.clone().requires_grad_()

        def go() -> object:
            leaf.grad = None
            with chosen(how):
                run(leaf).backward(up)
            return None

        return go

    layers = {"eager float": (float_lif, drive, "plain"), "eager quantized": (lif, codes, "plain"),
              "fused quantized": (lif, codes, "fused")}  # fmt: skip
    if not numba_missing():
        layers["fused quantized by numba"] = (lif, codes, "numba")
    layers["fused float"] = (LIF(leak=0.75), drive, "all")
    if compiled:
        layers["torch.compile float"] = (torch.compile(float_lif), drive, "plain")
    found: dict[str, Callable[[], object]] = {"copy ceiling (read input, write spikes)": lambda: copy.copy_(drive)}
    found |= {f"{name}, forward": forward(*job) for name, job in layers.items()}
    found |= {f"{name}, forward + backward": both(*job) for name, job in layers.items()}
    rates = {
        name: float(forward(*layers[name])().mean())
        for name in ("eager float", "fused float", "eager quantized", "fused quantized")
    }
    return found, rates


def measure(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every job in every round, interleaved; two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 2):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if number >= 2:
                times[name].append(1e3 * (time.perf_counter() - started))
    return times


def table(times: dict[str, list[float]]) -> str:
    """Markdown, with the ratio to the eager float layer of the same kind and the share of the copy ceiling."""
    middle = {name: statistics.median(values) for name, values in times.items()}
    copy = middle["copy ceiling (read input, write spikes)"]
    lines = ["| what | median ms | min | max | to eager float | to eager quantized | copy ceiling / time |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, values in times.items():
        kind = name.split(", ")[-1] if ", f" in name else ""
        ratios = [
            f"{middle[name] / middle[f'{base}, {kind}']:.3f}" if kind else ""
            for base in ("eager float", "eager quantized")
        ]
        lines.append(
            f"| {name} | {middle[name]:.1f} | {min(values):.1f} | {max(values):.1f} | {ratios[0]} | {ratios[1]} "
            f"| {copy / middle[name]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    jobs, rates = rows(given.steps, given.batch, not given.no_compile)
    times = measure(jobs, given.rounds)
    neurons = given.batch * CHANNELS * SIDE * SIDE
    said = ", ".join(f"{name} {rate:.3f}" for name, rate in rates.items())
    page = PAGE_TEXT.format(
        steps=given.steps, neurons=neurons, table=table(times), rates=said, rounds=given.rounds,
        machine=platform.machine(), threads=torch.get_num_threads(), torch=torch.__version__, commit=commit(),
    )  # fmt: skip
    print(page)
    if given.write:
        PAGE.write_text(page, encoding="utf-8")
    POOL.release()


def commit() -> str:
    """The commit that is measured."""
    command = ["git", "-C", str(PAGE.parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


if __name__ == "__main__":
    main()

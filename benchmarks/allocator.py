"""How long the exact allocation of bits takes: 200 layers, 15 widths, weights and membranes.

python benchmarks/allocator.py            # writes benchmarks/allocator.md
"""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import scipy

from spikequant.analyse.allocator import Choice, Item, solve

TARGET = Path(__file__).with_suffix(".md")
LAYERS, RUNS = 200, 5
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16)
LIMITS = {
    "memory": ("memory",),
    "flash and RAM": ("flash", "ram"),
    "flash, RAM and synop-bits": ("flash", "ram", "synop_bits"),
}
SHARE = 0.15
PAGE = """# Time of an exact allocation

`python benchmarks/allocator.py`: {layers} layers, weights and membranes, {widths} widths each; counts, curvatures and
operations drawn log-uniformly over three to four decades, each limit {share:.0%} of what 32 bits take; the integer
program is solved until the gap to the optimum is proven closed. Seconds, median of {runs} networks (least to most).
Commit {commit}, scipy {scipy}, one thread of a 2-core x86 CPU; the goal is 5 s.

| limits | wall | processor |
|---|---|---|
{rows}
"""


def items(seed: int) -> list[Item]:
    """Layers like those of a network: counts, curvatures and operations over several decades."""
    dice, found = np.random.default_rng(seed), []
    for layer in range(LAYERS):
        for role in ("weight", "membrane"):
            count = float(int(10 ** dice.uniform(2, 6)))
            curvature, operations = 10 ** dice.uniform(-4, 0), 10 ** dice.uniform(3, 6)
            memory = "flash" if role == "weight" else "ram"
            choices = []
            for bits in WIDTHS:
                loads = {"memory": count * bits, memory: count * bits}
                loads |= {"synop_bits": operations * bits} if role == "weight" else {}
                choices.append(Choice(bits, curvature * 4.0**-bits, loads))
            found.append(Item(f"layer{layer}", role, tuple(choices)))
    return found


def limits(found: list[Item], names: tuple[str, ...]) -> dict[str, float]:
    return {n: SHARE * 32 * sum(i.choices[0].loads.get(n, 0.0) for i in found) for n in names}


def seconds(names: tuple[str, ...], seed: int) -> tuple[float, float]:
    found = items(seed)
    most = limits(found, names)
    wall, processor = time.perf_counter(), time.process_time()
    solve(found, most)
    return time.perf_counter() - wall, time.process_time() - processor


def shown(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"


def main() -> None:
    rows = []
    for name, limit in LIMITS.items():
        wall, processor = zip(*(seconds(limit, seed) for seed in range(RUNS)), strict=True)
        rows.append(f"| {name} | {shown(list(wall))} | {shown(list(processor))} |")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    TARGET.write_text(
        PAGE.format(
            layers=LAYERS, widths=len(WIDTHS), share=SHARE, runs=RUNS, commit=commit.strip(), scipy=scipy.__version__,
            rows="\n".join(rows),
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()

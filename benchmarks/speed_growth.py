"""How a training step grows with T, batch, width and bits, and what it takes of memory: writes speed_growth.* here.

python benchmarks/speed_growth.py growth    # times: leave the machine alone meanwhile
python benchmarks/speed_growth.py memory    # a process for every row; a busy machine does not matter

Each writes its half of speed_growth.json with the commit that it ran on; the page is made of both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spikequant.bench.drawing import picture
from spikequant.bench.growth import Point, growth
from spikequant.bench.page import growth_table, markdown
from spikequant.bench.peak import peak_bytes
from spikequant.bench.session import facts_here
from spikequant.bench.subjects import FLOAT, subjects
from spikequant.bench.workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
STORE = HERE / "speed_growth.json"


def said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def memory(names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Bytes that a training step adds, by workload: our rows, and the float rows of other libraries."""
    found: dict[str, dict[str, int]] = {}
    for name in names:
        load = WORKLOADS[name]
        for subject in subjects(load, 8)[0]:
            if subject.half or not (subject.is_ours or subject.kind == FLOAT):
                continue
            said(f"{name}: {subject.name}")
            peak = peak_bytes(name, subject.name, 8, load.steps, load.batch)
            if peak is not None:
                found.setdefault(name, {})[subject.name] = peak
    return found


def page(kept: dict[str, Any]) -> str:
    """Both halves as Markdown."""
    parts = ["# How the cost of a training step grows", f"The networks of [speed.md](speed.md). {kept['machine']}."]
    if "growth" in kept:
        points = [Point(**p) for p in kept["growth"]["points"]]
        parts += [
            "## Time: conv16-LIF-pool-conv32-LIF-pool-FC10, T = 16, batch 32, W8/U8, one thing varied at a time",
            "![Milliseconds of a training step against T, batch, width and bits](speed_growth.svg)",
            markdown(growth_table(points)),
            f"Milliseconds, medians of three interleaved rounds; width: channels of the first layer. Commit "
            f"{kept['growth']['commit']}.",
        ]
    if "memory" in kept:
        parts += ["## Memory that a training step adds at its peak, MiB", _memory_table(kept["memory"]["bytes"]),
                  f"Resident pages of a process of its own, one step; float32, batch and T as in speed.md; the ratio "
                  f"is to the least of the other libraries in float. Commit {kept['memory']['commit']}."]  # fmt: skip
    return "\n\n".join([*parts, "Command: `python benchmarks/speed_growth.py growth`, `... memory`."]) + "\n"


def _memory_table(found: dict[str, dict[str, int]]) -> str:
    rows = []
    for name, peaks in found.items():
        others = [v for n, v in peaks.items() if "spikequant" not in n]
        rows += [[name, n, f"{v / 2**20:.0f}", f"{v / min(others):.2f}"] for n, v in peaks.items()]
    return markdown((["workload", "network", "MiB", "ratio"], rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("half", choices=("growth", "memory", "page"))
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    found: dict[str, Any] = {}
    if given.half == "growth":
        points = growth(
            WORKLOADS["conv"],
            steps=(1, 4, 16, 64),
            batches=(1, 8, 32),
            widths=(8, 16, 32),
            bits=(2, 4, 8),
            rounds=3,
            said=said,
        )
        found["growth"] = {"commit": commit.strip(), "points": [asdict(p) for p in points]}
        (HERE / "speed_growth.svg").write_text(picture(points), encoding="utf-8")
    elif given.half == "memory":
        found["memory"] = {"commit": commit.strip(), "bytes": memory(tuple(given.workload or WORKLOADS))}
    kept: dict[str, Any] = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    facts = facts_here()
    named = [f"{name} {facts[name]}" for name in ("machine", "torch", "spikingjelly") if name in facts]
    kept |= {"machine": "; ".join(named), **found}
    STORE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (HERE / "speed_growth.md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()

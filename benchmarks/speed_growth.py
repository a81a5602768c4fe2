"""How a training step grows with T, batch, width and bits, and what it takes of memory: writes speed_growth.* here.

python benchmarks/speed_growth.py growth    # times: leave the machine alone meanwhile
python benchmarks/speed_growth.py memory    # a process for every row; a busy machine does not matter

Each point is kept in speed_growth.json with the commit that it was measured on: a run that was stopped goes on, and the
page is made of what is there.  Delete the file to measure anew.
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
VARIED = {"steps": (1, 4, 16, 64), "batches": (1, 8, 32), "widths": (8, 16, 32), "bits": (2, 4, 8)}
NAMES = {"steps": "T", "batches": "batch", "widths": "width", "bits": "bits"}


def said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stored() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}


def keep(half: str, rows: list[Any]) -> None:
    """Write the rows of a half, and the page of both."""
    facts = facts_here()
    named = [f"{name} {facts[name]}" for name in ("machine", "torch", "spikingjelly") if name in facts]
    kept = {**stored(), "machine": "; ".join(named), half: rows}
    STORE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (HERE / "speed_growth.md").write_text(page(kept), encoding="utf-8")


def measured(name: str) -> list[str]:
    """Rows of a workload: ours, and those of other libraries in float32."""
    return [s.name for s in subjects(WORKLOADS[name], 8)[0] if s.is_ours or (not s.half and s.kind == FLOAT)]


def page(kept: dict[str, Any]) -> str:
    """Both halves as Markdown, and the picture."""
    parts = ["# How the cost of a training step grows", f"The networks of [speed.md](speed.md). {kept['machine']}."]
    if "growth" in kept:
        points = [Point(p["varied"], p["value"], p["milliseconds"]) for p in kept["growth"]]
        (HERE / "speed_growth.svg").write_text(picture(points), encoding="utf-8")
        parts += [
            "## Time: conv16-LIF-pool-conv32-LIF-pool-FC10, T = 16, batch 32, W8/U8, one thing varied at a time",
            "![Milliseconds of a training step against T, batch, width and bits](speed_growth.svg)",
            markdown(growth_table(points)),
            f"Milliseconds, medians of interleaved rounds; width: channels of layer 1. {commits(kept['growth'])}",
        ]
    if "memory" in kept:
        rows = kept["memory"]
        parts += [
            "## Memory that a training step adds at its peak, MiB",
            _memory_table(rows),
            "Resident pages of a process of its own, one step; float32, shapes as in speed.md; the ratio is to the "
            f"least of the other libraries in float. {commits([{'commit': row[3]} for row in rows])}",
        ]
    return "\n\n".join([*parts, "Command: `python benchmarks/speed_growth.py growth`, `... memory`."]) + "\n"


def commits(rows: list[dict[str, Any]]) -> str:
    """The commits that rows were measured on."""
    return f"Commit {', '.join(dict.fromkeys(row['commit'] for row in rows))}."


def _memory_table(rows: list[Any]) -> str:
    lines = []
    for name, subject, peak, _ in rows:
        others = [r[2] for r in rows if r[0] == name and "spikequant" not in r[1]]
        lines.append([name, subject, f"{peak / 2**20:.0f}", f"{peak / min(others):.2f}" if others else ""])
    return markdown((["workload", "network", "MiB", "ratio"], lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("half", choices=("growth", "memory"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    if given.half == "growth":
        for varied, values in VARIED.items():
            for value in values:
                if [NAMES[varied], value] not in [[p["varied"], p["value"]] for p in stored().get("growth", [])]:
                    asked = {**dict.fromkeys(VARIED, ()), varied: (value,)}
                    (point,) = growth(WORKLOADS["conv"], **asked, rounds=given.rounds, said=said)
                    keep("growth", [*stored().get("growth", []), {**asdict(point), "commit": commit.strip()}])
    elif given.half == "memory":
        for name in given.workload or WORKLOADS:
            for subject in measured(name):
                if [name, subject] not in [row[:2] for row in stored().get("memory", [])]:
                    load = WORKLOADS[name]
                    said(f"{name}: {subject}")
                    peak = peak_bytes(name, subject, 8, load.steps, load.batch)
                    if peak is not None:
                        keep("memory", [*stored().get("memory", []), [name, subject, peak, commit.strip()]])


if __name__ == "__main__":
    main()

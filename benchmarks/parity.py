"""Writes benchmarks/parity.md: random neurons of every installed library against their readings.

python benchmarks/parity.py [--configurations 200]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tests.parity.harness import BATCH, STEPS, Tally, families, sweep  # noqa: E402

HEADER = """# Parity of readings

Random neurons of each library over the legal range of their parameters, T = {steps}, batch {batch}, each run by the
library and by our reading (`sq.check_reading`) on the same input, from rest. *exact*: every spike is equal.
*faithful*: the differences are listed below. Margin: how far from the threshold, in thresholds, a membrane
was where its spike first differed. Written by `python benchmarks/parity.py` on {date} at commit {commit};
torch {torch}, {versions}.

"""
COLUMNS = (
    "library", "neuron", "configurations", "exact", "faithful", "refused", "firing 1 to 99 %", "neuron-steps", "spikes",
    "differ by rounding", "largest margin", "differ otherwise",
)  # fmt: skip


def row(tally: Tally) -> str:
    """One line of the table."""
    grades = tally.grades
    margin = f"{tally.margin:.1e}" if tally.by_rounding else "-"
    cells = (
        tally.family.library.name, tally.family.name, tally.configurations, grades["exact"], grades["faithful"],
        grades["refused"], tally.alive, f"{tally.neuron_steps:,}", f"{tally.spikes:,}", tally.by_rounding, margin,
        tally.differing - tally.by_rounding,
    )  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def reasons(tallies: list[Tally]) -> str:
    """What differs, and in how many configurations."""
    lines = ["\n## Differences\n\n"]
    for tally in tallies:
        for reason, count in sorted(tally.reasons.items()):
            lines.append(f"- {tally.family.library.name} {tally.family.name}, {count} configurations: {reason}.\n")
    return "".join(lines) if len(lines) > 1 else "\nNo spike differs.\n"


def main() -> None:
    """Run every family and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--configurations", type=int, default=200)
    count = parser.parse_args().configurations
    tallies = []
    for family in families():
        started = time.perf_counter()
        tallies.append(sweep(family, range(count)))
        print(f"{family.library.name} {family.name}: {time.perf_counter() - started:.0f} s", flush=True)
    packages = sorted({tally.family.library.name.lower() for tally in tallies})
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text = HEADER.format(
        steps=STEPS, batch=BATCH, date=time.strftime("%Y-%m-%d"), commit=commit.stdout.strip(),
        torch=torch.__version__, versions=versions,
    )  # fmt: skip
    text += "| " + " | ".join(COLUMNS) + " |\n" + "|---|---|" + "--:|" * (len(COLUMNS) - 2) + "\n"
    text += "".join(row(tally) for tally in tallies) + reasons(tallies)
    (ROOT / "benchmarks" / "parity.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

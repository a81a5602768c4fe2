"""Writes benchmarks/hostile_files.md: damaged files of every format, and how loading them ended.

python benchmarks/hostile_files.py [--cases 5000]     some ten minutes on one core
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST = 1000
HEADER = """# Hostile files

Sound files damaged at random, each loaded once: bits flipped, bytes overwritten, cut, spliced, inserted, zeroed,
swapped, pointers exchanged; and with knowledge of the format: values of a record replaced, dropped, doubled, moved or
buried and the checksum made right again, tensors of other shapes, types and sizes, HDF5 trees with links, missing,
renamed or huge members. Seeds {first} to {last} of `tests/hostile/attack.py`; a case is wrong if it ends in anything
but success with sound content or the format's own error with file and reason.
Written by `python benchmarks/hostile_files.py` on {date} at commit {commit}, Python {python}, {machine}.

*Memory* is the largest peak of Python and numpy over twice the file, in a second run over the first {traced} seeds.
*Sound content*: a `.spq` file and the integers of a `.nir` file have the hash that they were written with (or, forged,
one that survives being written again); a plan says what the file says. The graph of a `.nir` file has no checksum:
that it was read says only that it could be.

| format | cases | kinds of damage | read, content sound | refused with its error | wrong | slowest | memory |
|---|---|---|---|---|---|---|---|
"""


def attacked(name: str, first: int, cases: int, *options: str) -> dict:
    command = [sys.executable, "-m", "tests.hostile.attack", name, str(first), str(cases), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{name}: the process died ({done.returncode})\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def all_of(name: str, cases: int) -> dict:
    """The tally of all seeds, a process for every thousand."""
    parts = [attacked(name, FIRST + k, min(1000, cases - k)) for k in range(0, cases, 1000)]
    ends: Counter[str] = Counter()
    for part in parts:
        ends.update(part["ends"])
    most = {key: max(part[key] for part in parts) for key in ("kinds", "slowest_s")}
    return {"ends": ends, "wrong": [line for part in parts for line in part["wrong"]], **most}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=5000)
    cases = parser.parse_args().cases
    traced = min(cases, 500)
    rows, wrong = [], []
    for name in ("spq", "nir integers", "nir graph", "plan"):
        tally = all_of(name, cases)
        memory = attacked(name, FIRST, traced, "--memory")["most_bytes"]
        ends = tally["ends"]
        rows.append(
            f"| {name} | {cases:,} | {tally['kinds']} | {ends.get('read', 0):,} | {ends.get('refused', 0):,} | "
            f"{ends.get('wrong', 0):,} | {tally['slowest_s']:.3f} s | {memory / 2**20:.1f} MiB |"
        )
        wrong += tally["wrong"]
        print(rows[-1], flush=True)
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    head = HEADER.format(
        first=FIRST, last=FIRST + cases - 1, date=time.strftime("%Y-%m-%d"), commit=said.stdout.strip(),
        python=platform.python_version(), machine=f"{platform.machine()}, one core", traced=f"{traced:,}",
    )  # fmt: skip
    text = head + "\n".join(rows) + "\n" + "".join(f"\n- {line}" for line in wrong)
    (ROOT / "benchmarks" / "hostile_files.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The four-way suite: simulation = golden model = ONNX Runtime = compiled C on 10,000 cases, every spike and state.

    python benchmarks/conformance.py            # runs, or goes on where it was stopped
    python benchmarks/conformance.py --write    # the same, then puts the table into benchmarks/conformance.md
    python benchmarks/conformance.py --report   # the table of what is there so far

A case is a random network with one of its five inputs; it counts if some layer is alive under it.  Records go to
``runs/conformance/four_way.jsonl`` as networks finish, so the run can be killed at any time; a torn last line is run
again.  One process, one core; about five cases a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tests.conformance.four_way import BUILDS, LEAST, MOST, run  # noqa: E402
from tests.conformance.test_torch_equals_golden import COMMON, RARE  # noqa: E402

JOURNAL = ROOT / "runs" / "conformance" / "four_way.jsonl"
PAGE = ROOT / "benchmarks" / "conformance.md"
BEGIN, END = "<!-- four-way: begin -->", "<!-- four-way: end -->"
FIRST, CHUNK, CASES = 10_000, 20, 10_000
READERS = ("simulation", "onnx", "c")


def read(journal: Path) -> list[dict[str, Any]]:
    """Whole records; what was torn off at the end is cut away."""
    if not journal.exists():
        return []
    data = journal.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with open(journal, "r+b") as stream:
            stream.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def append(journal: Path, records: list[dict[str, Any]]) -> None:
    """Add records, down to the disk."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    with open(journal, "ab") as stream:
        stream.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        stream.flush()
        os.fsync(stream.fileno())


def commit() -> str:
    """The commit that runs, with a plus if files were changed."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    dirty = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    return head.stdout.strip() + "+" * bool(dirty.stdout.strip())


def live_cases(records: list[dict[str, Any]]) -> int:
    """Cases that count."""
    return sum(r["live"] for r in records)


def sweep(journal: Path, cases: int) -> list[dict[str, Any]]:
    """Run networks until `cases` live cases are there."""
    records, head, start = read(journal), commit(), time.perf_counter()
    done, before, k = {r["seed"] for r in records}, live_cases(records), 0
    while live_cases(records) < cases:
        seeds = [s for s in range(FIRST + k * CHUNK, FIRST + (k + 1) * CHUNK) if s not in done]
        flags, k = BUILDS[k % len(BUILDS)], k + 1
        if not seeds:
            continue
        new = [{**r.to_dict(), "commit": head} for r in run(seeds, flags)]
        append(journal, new)
        records += new
        wrong = sum(sum(r["differences"].values()) + bool(r["error"]) for r in records)
        rate = (live_cases(records) - before) / (time.perf_counter() - start)
        left = (cases - live_cases(records)) / max(rate, 1e-9) / 60
        so_far = f"{live_cases(records):,} of {cases:,} live cases, {wrong} differences"
        print(f"{so_far}, {rate:.2f} cases/s, {left:.0f} min left", flush=True)
    return records


def table(records: list[dict[str, Any]]) -> str:
    """The page's section."""
    ran = [r for r in records if not r["refused"]]
    facts, features, seconds, builds = Counter(), Counter(), Counter(), Counter()
    for r in ran:
        facts.update(r["facts"])
        features.update(r["features"])
        seconds.update(r["seconds"])
        builds[r["compiler"]] += r["cases"]
    cases, live = sum(r["cases"] for r in ran), live_cases(ran)
    refused = Counter(r["refused"] for r in records if r["refused"])
    total = {key: sum(r[key] for r in ran) for key in ("neuron_steps", "spikes", "states")}
    compared = f"{total['neuron_steps']:,} | {total['spikes']:,} | {total['states']:,}"
    lines = [
        f"## Four readers, {cases:,} cases",
        "",
        f"`python benchmarks/conformance.py`: {len(ran):,} random networks with 5 inputs each,",
        f"{LEAST} to {MOST} steps: {cases:,} cases, {live:,} of them alive (some layer fires between",
        "5 and 95 % of the time). Compared with the golden model: every spike and every stored state of every step,",
        "and the scores of ONNX Runtime and C.",
        "",
        "| reader | cases | neuron-steps | spikes | states | differences |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, label in zip(
        READERS, ("PyTorch simulation", "ONNX Runtime, step and sequence", "compiled C"), strict=True
    ):
        count = sum(r["differences"].get(name, r["states"]) for r in ran)
        lines.append(f"| {label} | {cases:,} | {compared} | {count:,} |")
    errors = [r for r in ran if r["error"]]
    lines += [
        "",
        f"Readers that failed: {len(errors)}." + "".join(f" Seed {r['seed']}: {r['error']}." for r in errors[:5]),
    ]
    lines += [
        f"Refused with a reason: {sum(refused.values())} (" + "; ".join(f"{n}: {t}" for t, n in refused.items()) + ")."
    ]
    met = ", ".join(f"{facts[k]:,} {text}" for k, text in FACTS.items())
    lines += [f"Alive: {met}.", "C: " + ", ".join(f"`{b}` {n:,} cases" for b, n in sorted(builds.items())) + "."]
    lines += [f"{environment()}; {cases / max(1e-9, sum(seconds.values())):.1f} cases a second on one core; "
              f"commit {', '.join(sorted({r['commit'] for r in ran}))}."]  # fmt: skip
    names = sorted(features)
    missing = sorted(f for f in (*COMMON.split(), *RARE.split()) if f not in {n.replace(" ", "_") for n in names})
    lines += [
        "",
        f"Networks by feature ({len(names)}; of those that the suite must cover, missing: {missing or 'none'}):",
        "",
    ]
    lines += ["```", *(f"{features[name]:6,}  {name}" for name in names), "```"]
    return "\n".join(lines)


FACTS = {
    "equal": "membranes met a threshold exactly",
    "saturated": "values were held at the limit of their register",
    "wrapped": "values wrapped around",
    "fired": "times a threshold was reached",
}


def environment() -> str:
    """Versions that gave the numbers."""
    import numpy
    import onnxruntime

    versions = f"torch {torch.__version__}, numpy {numpy.__version__}, onnxruntime {onnxruntime.__version__}"
    return f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores"


def write(text: str) -> None:
    """Put the section between its marks, or at the end."""
    page, section = PAGE.read_text(encoding="utf-8"), f"{BEGIN}\n{text}\n{END}\n"
    if BEGIN in page:
        page = page[: page.index(BEGIN)] + section + page[page.index(END) + len(END) + 1 :]
    else:
        page = f"{page.rstrip()}\n\n{section}"
    PAGE.write_text(page, encoding="utf-8")


def main() -> int:
    """Run, report, write; 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--journal", type=Path, default=JOURNAL)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SPIKEQUANT_CACHE"] = cache
        records = read(options.journal) if options.report else sweep(options.journal, options.cases)
    text = table(records)
    print(text)
    if options.write:
        write(text)
    return int(any(r["error"] or any(r["differences"].values()) for r in records))


if __name__ == "__main__":
    sys.exit(main())

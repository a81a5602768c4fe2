"""Writes benchmarks/target_oracles.md: the profiles loihi-cuba and xylo against public simulators of the chips.

The simulators live in Pythons of their own (see the page); name these interpreters, separated like PATH:

SPIKEQUANT_ORACLES=... python benchmarks/target_oracles.py [--networks 1000]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.targets import oracle_cases as cases  # noqa: E402 - a module of the tests

PAIRS, XYLO_STEPS, LOIHI_STEPS, TOGETHER = 1_000_000, 1000, 50, 50
PACKAGES = {"lava": "lava-nc", "nengo_loihi": "nengo-loihi", "brian2_loihi": "brian2-loihi", "xylosim": "xylosim"}
HEADER = """# Profiles against public simulators

`loihi-cuba/1` and `xylo/1` beside programs that other people wrote. Written by `python benchmarks/target_oracles.py` on
{date} at commit {commit}, numpy {numpy}. Integers are compared for equality.

Decays: random 24-bit values by random 12-bit decays, as the current decays (`du + 1`) and as the membrane does (`dv`);
brian2_loihi builds a group per decay, so it sees {few} of the 4,096. Networks: random ones that keep to the profile
(`tests/targets/networks.py`), every spike, current and membrane of every neuron at every step, golden model against
simulator. Xylo: inputs of up to 15 events, a recurrent hidden layer, outputs, biases; only networks that the check
accepts, because the others saturate in the order of delivery. Loihi: one to three layers, recurrence, biases, weight
exponents, in lava's timing (every synapse takes a step).

| simulator | what | networks or pairs | steps | values compared | spikes | differences |
|---|---|--:|--:|--:|--:|--:|
"""
FOOTER = """
One value is left out by construction, not by luck: where a sum is exactly +2^23 or -2^23, lava keeps +2^23 as current,
which 24 bits cannot hold; the profile wraps to -2^23 (`frontends/lava/network.py` says the same).

Once: a Python 3.10 with `pip install lava-nc`; a Python 3.11 with `pip install xylosim nengo-loihi`; one with
`pip install "numpy<2" "brian2<2.8" brian2-loihi` (its brian2 does not import with numpy 2). xylosim states no licence,
so it is a test-time oracle here and never a dependency. A few networks of each run in
`tests/targets/test_public_oracles.py` where `SPIKEQUANT_ORACLES` names these Pythons; elsewhere those tests skip.
"""


def main() -> None:
    """Run what there is, write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=1000)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place, most = Path(folder), asked.networks
        for row in (*decay_rows(place), xylo_row(place, most), loihi_row(place, most)):
            print(row, flush=True)
            rows.append(row)
    word = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(word, capture_output=True, text=True, check=True, cwd=ROOT)
    text = HEADER.format(date=time.strftime("%Y-%m-%d"), commit=commit.stdout.strip(), numpy=np.__version__, few=FEW)
    (ROOT / "benchmarks" / "target_oracles.md").write_text(text + "\n".join(rows) + "\n" + FOOTER, encoding="utf-8")


FEW = 64


def version(python: str, module: str) -> str:
    """Name and version of an oracle."""
    word = f"import importlib.metadata as m; print(m.version({PACKAGES[module]!r}))"
    done = subprocess.run([python, "-c", word], capture_output=True, text=True, check=True)
    return f"{PACKAGES[module]} {done.stdout.strip()}"


def decay_rows(folder: Path) -> Iterator[str]:
    """A million pairs by each rule."""
    for module in ("lava", "nengo_loihi", "brian2_loihi"):
        python = cases.interpreter_with(module)
        if python is None:
            yield f"| {PACKAGES[module]} | decays | - | - | - | - | not installed |"
            continue
        value, decay = cases.decays(PAIRS, FEW if module == "brian2_loihi" else 4096)
        np.savez(folder / "cases.npz", value=value, decay=decay)
        cases.call(python, "run_decays.py", module, folder / "cases.npz", folder / "results.npz")
        found, wrong = np.load(folder / "results.npz"), 0
        for key, offset in (("u", 1), ("v", 0)):
            wanted = cases.law_decay(value, decay + offset)
            wrong += int(np.count_nonzero(found[key] != wanted))
        yield f"| {version(python, module)} | decays of u and v | {PAIRS:,} | 1 | {2 * PAIRS:,} | - | **{wrong:,}** |"


def xylo_row(folder: Path, networks: int) -> str:
    """Networks of Xylo."""
    python = cases.interpreter_with("xylosim")
    if python is None:
        return "| xylosim | networks | - | - | - | - | not installed |"
    total, done, seed = np.zeros(3, dtype=np.int64), 0, 0
    while done < networks:
        nets, arrays = cases.xylo_cases(range(seed, seed + TOGETHER), XYLO_STEPS)
        seed += TOGETHER
        np.savez(folder / "cases.npz", **arrays)
        cases.call(python, "run_xylosim.py", folder / "cases.npz", folder / "results.npz")
        results = dict(np.load(folder / "results.npz"))
        for k, (net, spikes) in enumerate(nets[: networks - done]):
            total += cases.xylo_differences(net, spikes, results, k)
        done += min(len(nets), networks - done)
        print(f"xylo: {done} networks, {total.tolist()}", file=sys.stderr, flush=True)
    wrong, values, fired = total.tolist()
    counts = f"{done:,} | {XYLO_STEPS:,} | {values:,} | {fired:,} | **{wrong:,}**"
    return f"| {version(python, 'xylosim')} | networks | {counts} |"


def loihi_row(folder: Path, networks: int) -> str:
    """Networks of Loihi on lava's process models."""
    python = cases.interpreter_with("lava")
    if python is None:
        return "| lava-nc | networks | - | - | - | - | not installed |"
    total = np.zeros(3, dtype=np.int64)
    for start in range(0, networks, TOGETHER):
        nets, arrays = cases.loihi_cases(range(start, min(start + TOGETHER, networks)), LOIHI_STEPS)
        np.savez(folder / "cases.npz", **arrays)
        cases.call(python, "run_lava.py", folder / "cases.npz", folder / "results.npz")
        results = dict(np.load(folder / "results.npz"))
        for net, spikes, name in nets:
            total += cases.loihi_differences(net, spikes, name, results)
        print(f"loihi: {start + len(nets)} networks, {total.tolist()}", file=sys.stderr, flush=True)
    wrong, values, fired = total.tolist()
    what = "networks (process models, fixed_pt)"
    counts = f"{networks:,} | {LOIHI_STEPS} | {values:,} | {fired:,} | **{wrong:,}**"
    return f"| {version(python, 'lava')} | {what} | {counts} |"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

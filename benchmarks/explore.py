"""Candidates per hour of an exploration beside a plain loop; writes `explore.md` beside this file.

    SPIKEQUANT_DATA=... python benchmarks/explore.py               # MNIST, 1,000 candidates, some minutes
    python benchmarks/explore.py --quick                           # digits, in a minute; writes nothing

Both score the same candidates of the same space on the same samples.  The plain loop does for each candidate what a
user would write: quantize_, calibrate, freeze and a pass over the data; it is timed on a sample of the candidates, in
turns with parts of the shared run, and must give the same figures.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

import spikequant as sq
from spikequant.data import ArrayBatches, load_digits, load_mnist
from spikequant.explore.build import Materials
from spikequant.explore.direct import DirectEvaluator
from spikequant.explore.evaluator import SharedEvaluator
from spikequant.explore.records import Candidate, Measured
from spikequant.explore.selection import select
from spikequant.explore.space import Space
from spikequant.law.atomic import write_text
from spikequant.models.conv import digits_net, mnist_net

TARGET = Path(__file__).with_suffix(".md")
DROP = 0.01
PARTS = 4
GOAL = 20
SPACE = {
    "rules": [
        {"match": "conv1", "weight": {"bits": [2, 3, 4, 6, 8], "clipping": "mse"}},
        {"match": "lif1", "membrane": {"bits": [4, 8], "signed": False}},
        {"match": "conv2*", "weight": {"bits": [2, 3, 4, 6, 8], "clipping": "mse"}},
        {"match": "lif2", "membrane": {"bits": [3, 4, 6, 8], "signed": False}},
        {"match": "fc", "weight": {"bits": [2, 3, 4, 6, 8], "clipping": "mse"}},
    ]
}
PAGE = """# Candidates per hour of an exploration, beside a plain loop

`SPIKEQUANT_DATA=... python benchmarks/explore.py`: {what}; {samples:,} validation images, T = {steps}, calibration on
1,000 images, after training (PTQ); a space of {size:,} candidates: bits of two convolutions and a linear layer (2 to
8), bits of two membranes (3 to 8), rounding and reach chosen by `calibrate`. Commit {commit}, {machine},
{threads} threads, torch {torch}; this page is written by the script.

| | candidates | seconds | seconds each | candidates per hour | times the plain loop |
|---|---:|---:|---:|---:|---:|
{rows}

- Plain loop: quantize_, calibrate, freeze, one pass over the data ({plain_range} seconds, median), in turns with
  parts of the shared run. {equal} of its {plain} candidates gave the figures of the shared run, bit for bit.
- Giving up, with a target {drop:g} points below the real network ({real:.2%}): {stopped:,} of {hasty:,} candidates,
  after {seen:.0f} samples on average.
- {front}
- The machine's cache of compiled neuron kernels was filled before.
- The process held {held:.1f} GB at most.
- 1,000 candidates in under 10 minutes on 2 cores: **{fast}**. {goal} times the candidates per hour of a plain loop:
  **{met}**.
"""


def trained(data: str, folder: Path) -> tuple[nn.Module, Materials, ArrayBatches, str, int]:
    """The real network, what candidates are built from, the samples that decide, and both in words."""
    torch.manual_seed(0)
    if data == "mnist":
        found, model, scale, samples = load_mnist(), mnist_net(), 1 / 255, 2000
        learn, lr, epochs, what = slice(0, 12_000), 2e-3, 2, "`models.mnist_net` on MNIST"
    else:
        found, model, scale, samples = load_digits(), digits_net(), 1 / 16, 300
        learn, lr, epochs, what = slice(0, 1000), 5e-3, 3, "the digits network"
    x, y = found.train.x, found.train.y
    sq.fit(
        model,
        ArrayBatches(x[learn], y[learn], batch_size=64, shuffle=True, scale=scale),
        epochs=epochs,
        lr=lr,
        quiet=True,
        checkpoint=folder / f"{data}.safetensors",
    )
    calibration = ArrayBatches(x[:1000], y[:1000], batch_size=125, scale=scale)
    decide = ArrayBatches(x[-samples:], y[-samples:], batch_size=125, scale=scale)
    example = next(iter(calibration))[0]
    return model, Materials(model=model.eval(), learn=calibration, example=example), decide, what, samples


def timed(
    evaluator: SharedEvaluator | DirectEvaluator, candidates: Sequence[Candidate]
) -> tuple[float, list[Measured]]:
    """Seconds, and the figures."""
    start = time.perf_counter()
    found = list(evaluator.measure(candidates))
    return time.perf_counter() - start, found


@dataclass
class Turns:
    """What was measured: seconds and figures of the shared evaluator, with and without giving up, and of the loop."""

    candidates: list[Candidate]
    whole: list[Measured] = field(default_factory=list)
    early: list[Measured] = field(default_factory=list)
    plain: dict[int, Measured] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"whole": [], "early": [], "plain": []})

    def take(
        self, evaluator: SharedEvaluator, direct: DirectEvaluator | None, plain: int, *, kind: str, candidates: int
    ) -> None:
        """Measure candidates in parts, and between them some by the plain loop."""
        results, size = {"whole": self.whole, "early": self.early}[kind], candidates
        sample = {round(k * (size - 1) / max(plain - 1, 1)) for k in range(plain)} if direct is not None else set()
        for part in range(PARTS):
            now = range(part * size // PARTS, (part + 1) * size // PARTS)
            spent, found = timed(evaluator, [self.candidates[k] for k in now])
            self.seconds[kind].append(spent)
            results += found
            for k in sorted(sample & set(now)):
                assert direct is not None
                spent, (self.plain[k],) = timed(direct, [self.candidates[k]])
                self.seconds["plain"].append(spent)
            said = ", ".join(f"{name} {sum(seconds):.1f} s" for name, seconds in self.seconds.items())
            print(f"{kind}: {len(results)} of {size}; {said}", flush=True)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits and 40 candidates; prints, writes nothing")
    parser.add_argument("--candidates", type=int, default=0, help="the first so many of the space (default: all)")
    parser.add_argument("--early", type=int, default=0, help="so many with giving up (default: all)")
    parser.add_argument("--plain", type=int, default=12, help="candidates of the plain loop")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "spikequant-explore")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    model, materials, decide, what, samples = trained("digits" if asked.quick else "mnist", asked.work)
    candidates = list(Space.from_dict(SPACE).candidates())
    size = min(asked.candidates or (40 if asked.quick else len(candidates)), len(candidates))
    shared = SharedEvaluator(materials, decide)
    direct = DirectEvaluator(materials, [(batch.x, batch.y) for batch in shared.data.batches])
    timed(shared, candidates[:1])  # fills what is made once
    turns = Turns(candidates)
    turns.take(shared, direct, asked.plain, kind="whole", candidates=size)
    hasty = SharedEvaluator(materials, decide, target_accuracy=shared.data.accuracy - DROP)
    turns.take(hasty, None, 0, kind="early", candidates=min(asked.early or size, size))
    page = page_of(turns, shared.data.accuracy, what=what, samples=samples, steps=int(str(model.steps)))
    print(page)
    if not asked.quick:
        write_text(TARGET, page)


def page_of(turns: Turns, real: float, *, what: str, samples: int, steps: int) -> str:
    """The page."""
    one = statistics.median(turns.seconds["plain"])
    each = {kind: sum(turns.seconds[kind]) / len(found) for kind, found in
            (("whole", turns.whole), ("early", turns.early))}  # fmt: skip
    rows = "\n".join(
        f"| {name} | {count:,} | {count * spent:.1f} | {spent:.4f} | {3600 / spent:,.0f} | {one / spent:.1f} |"
        for name, count, spent in (
            ("plain loop", len(turns.plain), one),
            ("shared, all samples", len(turns.whole), each["whole"]),
            ("shared, hopeless ones given up", len(turns.early), each["early"]),
        )
    )
    wanted = ("accuracy", "flash_bytes", "ram_bytes", "energy_pj", "emd")
    some = turns.whole[: len(turns.early)]
    fronts = [select(found, wanted, target_accuracy=real - DROP).front for found in (some, turns.early)]
    same = "the same with and without giving up" if fronts[0] == fronts[1] else "NOT the same with giving up"
    stopped, plain = [m.samples for m in turns.early if m.stopped_early], turns.seconds["plain"]
    return PAGE.format(
        what=what, samples=samples, steps=steps, size=len(turns.whole), commit=commit(), torch=torch.__version__,
        machine=platform.machine() + " CPU", threads=torch.get_num_threads(), rows=rows,
        plain_range=f"{min(plain):.2f} to {max(plain):.2f}", plain=len(plain), drop=100 * DROP, real=real,
        equal=sum(found.same_as(turns.whole[k]) for k, found in turns.plain.items()), stopped=len(stopped),
        hasty=len(turns.early), seen=statistics.mean(stopped) if stopped else 0.0, goal=GOAL,
        front=f"Front of {len(some):,} candidates ({', '.join(wanted)}): {len(fronts[0])} candidates; {same}.",
        held=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        fast="met" if 1000 * each["whole"] < 600 else "missed",
        met="met" if one >= GOAL * min(each.values()) else "missed",
    )  # fmt: skip


def commit() -> str:
    """The commit of this script."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()


if __name__ == "__main__":
    main()

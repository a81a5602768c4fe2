"""Candidates per hour of an exploration beside a plain loop; writes `explore.md` beside this file.

    SPIKEQUANT_DATA=... python benchmarks/explore.py               # MNIST, 1,000 candidates, about ten minutes
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
SPACE = {
    "rules": [
        {"match": "conv1", "weight": {"bits": [2, 3, 4, 6, 8], "clipping": "mse"}},
        {"match": "lif1", "membrane": {"bits": [4, 8], "signed": False}},
        {"match": "conv2*", "weight": {"bits": [2, 3, 4, 6, 8], "clipping": "mse"}},
        {"match": "lif2", "membrane": {"bits": [3, 4, 6, 8], "signed": False}},
        {"match": "fc", "weight": {"bits": [2, 3, 4, 6, 8], "clipping": "mse"}},
    ]
}
PAGE = """# Candidates per hour

`python benchmarks/explore.py`: {what}; {samples:,} validation images, T = {steps}, calibration on 1,000 images, after
training (PTQ); a space of {size:,} candidates: bits of two convolutions and a linear layer (2 to 8), bits of two
membranes (3 to 8), rounding and reach chosen by `calibrate`. Commit {commit}, {machine}, {threads} threads.

| | candidates | seconds each | candidates per hour | times the plain loop |
|---|---:|---:|---:|---:|
{rows}

- Plain loop: quantize_, calibrate, freeze, one pass over the data ({plain_range} seconds, median), in turns with the
  shared run. Its figures were compared with the shared ones: {equal} of {plain} equal, bit for bit.
- With a target {drop:g} points below the real network ({real:.2%}), {stopped:,} candidates were given up early, after
  {seen:.0f} samples on average. Front of the whole space ({objectives}): {front} candidates; the same with and without
  giving up: {same}.
- The machine's cache of compiled neuron kernels was filled before.
- All {size:,} candidates on all samples took {whole:.0f} s, with giving up {early:.0f} s.
- The process held {held:.1f} GB at most.
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


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits and 40 candidates; prints, writes nothing")
    parser.add_argument("--candidates", type=int, default=0, help="the first so many of the space (default: all)")
    parser.add_argument("--plain", type=int, default=12, help="candidates of the plain loop")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "spikequant-explore")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    model, materials, decide, what, samples = trained("digits" if asked.quick else "mnist", asked.work)
    candidates = list(Space.from_dict(SPACE).candidates())[: asked.candidates or (40 if asked.quick else None)]
    shared = SharedEvaluator(materials, decide)
    direct = DirectEvaluator(materials, [(batch.x, batch.y) for batch in shared.data.batches])
    timed(shared, candidates[:1])  # fills what is made once
    size, seconds, plain, full, equal = len(candidates), 0.0, [], [], 0
    sample = {round(k * (size - 1) / max(asked.plain - 1, 1)) for k in range(asked.plain)}
    for part in range(PARTS):
        now = range(part * size // PARTS, (part + 1) * size // PARTS)
        spent, found = timed(shared, [candidates[k] for k in now])
        seconds, full = seconds + spent, full + found
        for k in sorted(sample & set(now)):
            spent, (one,) = timed(direct, [candidates[k]])
            plain.append(spent)
            equal += one.same_as(full[k])
        print(
            f"{len(full)} of {size} shared in {seconds:.1f} s, {len(plain)} plain in {sum(plain):.1f} s, {equal} equal",
            flush=True,
        )
    target = shared.data.accuracy - DROP
    hasty = SharedEvaluator(materials, decide, target_accuracy=target)
    early, quick = 0.0, []
    for part in range(PARTS):
        spent, found = timed(hasty, candidates[part * size // PARTS : (part + 1) * size // PARTS])
        early, quick = early + spent, quick + found
        print(f"{len(quick)} of {size} with giving up in {early:.1f} s", flush=True)
    wanted = ("accuracy", "flash_bytes", "ram_bytes", "energy_pj", "emd")
    fronts = [select(results, wanted, target_accuracy=target).front for results in (full, quick)]
    stopped = [m.samples for m in quick if m.stopped_early]
    one = statistics.median(plain)
    rows = "\n".join(
        f"| {name} | {count:,} | {each:.3f} | {3600 / each:,.0f} | {one / each:.1f} |"
        for name, count, each in (
            ("plain loop", len(plain), one),
            ("shared, all samples", size, seconds / size),
            ("shared, bad ones given up", size, early / size),
        )
    )
    page = PAGE.format(
        what=what, samples=samples, steps=model.steps, size=size, commit=commit(), machine=platform.machine() + " CPU",
        threads=torch.get_num_threads(), rows=rows, plain_range=f"{min(plain):.2f} to {max(plain):.2f}", equal=equal,
        plain=len(plain), drop=100 * DROP, real=shared.data.accuracy, stopped=len(stopped),
        seen=statistics.mean(stopped) if stopped else 0.0, objectives=", ".join(wanted), front=len(fronts[0]),
        same="yes" if fronts[0] == fronts[1] else "NO", whole=seconds, early=early,
        held=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )  # fmt: skip
    print(page)
    if not asked.quick:
        write_text(TARGET, page)


def commit() -> str:
    """The commit of this script."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()


if __name__ == "__main__":
    main()

"""Firing-preserving quantization: rates matched after training, and kept in training; writes `firing.md`.

SPIKEQUANT_DATA=... python benchmarks/firing.py          # rows that are missing, then the table
SPIKEQUANT_DATA=... python benchmarks/firing.py --table  # the table of the rows that are there
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accuracy import LOADERS, batches
from one_shot import chosen, gained, loss, network_emd
from ptq_rows import CALIBRATION_BATCHES, DATA, FOLDER, commit, distances, measured, reference, rows, wrong

import spikequant as sq
from spikequant.analyse.probe import observe
from spikequant.data import ArrayBatches
from spikequant.law.atomic import write_text
from spikequant.training import RateDistribution

BITS = (2, 3, 4, 6, 8)
TRAINING_BITS = (2, 4)
TRAINING_SAMPLES = 20_000
WEIGHT = 10.0


@dataclass(frozen=True)
class Training:
    """One network that trains on, with or without the rate term."""

    data: str
    seed: int
    bits: int
    weight: float
    quantizer: str = "lsq"
    matched: bool = False

    @property
    def name(self) -> str:
        """Its file."""
        more = ("" if self.quantizer == "lsq" else f"-{self.quantizer}") + ("-matched" if self.matched else "")
        return f"qat-{self.data}-{self.seed}-{self.bits}-{self.weight:g}{more}.json"


def trainings(seed: int) -> list[Training]:
    """All of one seed."""
    return [
        *(Training(data, seed, 2, weight) for data in reversed(DATA) for weight in (WEIGHT, 0.0)),
        *(Training(data, seed, 2, 0.0, "lqnet") for data in reversed(DATA)),
        *(Training(data, seed, 2, WEIGHT, matched=True) for data in reversed(DATA)),
        *(Training(data, seed, 4, weight) for data in reversed(DATA) for weight in (WEIGHT, 0.0)),
    ]


def trained(row: Training, folder: Path) -> dict[str, object]:
    """Quantize, calibrate, one epoch on a third of the training set, freeze, and look at the whole test set."""
    started = time.time()
    real, seen = reference(row.data, row.seed, folder)
    train, test = batches(row.data, row.seed)
    example = next(iter(test))[0][:64]
    model = copy.deepcopy(real)
    plan = sq.Plan.uniform(weight_bits=row.bits, weight_quantizer=row.quantizer, membrane_bits=8, membrane_signed=False)
    sq.quantize_(model, plan, example, quiet=True)
    sq.calibrate(model, train)
    data = LOADERS[row.data]().train
    some = ArrayBatches(
        data.x[:TRAINING_SAMPLES], data.y[:TRAINING_SAMPLES], batch_size=128, shuffle=True, seed=row.seed, scale=1 / 255
    )
    torch.manual_seed(row.seed)
    terms = [RateDistribution(real, weight=row.weight)] if row.weight else []
    sq.fit(model, some, epochs=1, lr=1e-3, terms=terms, quiet=True)
    if row.matched:
        sq.match_firing(model, real, train, max_batches=CALIBRATION_BATCHES)
    sq.freeze(model)
    found = observe(model, test, operations=False)
    return {
        "data": row.data, "seed": row.seed, "bits": row.bits, "weight": row.weight,
        "quantizer": row.quantizer, "after": row.matched,
        "float_wrong": wrong(seen), "wrong": wrong(found), "samples": len(found.right),
        "layers": {path: distances(seen, found, path) for path in found.firing},
        "verify_differences": sq.verify(model, sq.lower(model, example), example).differences,
        "seconds": time.time() - started, "commit": commit(),
    }  # fmt: skip


def training_rows(folder: Path, **fields: object) -> list[dict]:
    """Rows of training with these fields, by seed."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("qat-*.json"))]
    return [row for row in found if all(row[k] == v for k, v in fields.items())]


LSQ = {"quantizer": "lsq", "after": False}
LQNET = {"quantizer": "lqnet", "after": False, "weight": 0.0}
BOTH = {"quantizer": "lsq", "after": True, "weight": WEIGHT}
HEAD = "data | weights | seeds | points lost: without | with | with keeps | EMD without | with | floor | matched L1"


def line(title: str, plain: list[dict], kept: list[dict]) -> str:
    """One row of a table: without and with."""
    both = {row["seed"] for row in plain} & {row["seed"] for row in kept}
    plain, kept = ([row for row in side if row["seed"] in both] for side in (plain, kept))
    return (
        f"| {title} | {len(both)} | {loss(plain)} | {loss(kept)} | {gained(kept, plain)} "
        f"| {network_emd(plain):.4f} | {network_emd(kept):.4f} | {network_emd(kept, 'floor'):.4f} "
        f"| {network_emd(plain, 'matched_l1'):.4f} → {network_emd(kept, 'matched_l1'):.4f} |"
    )


def table(lines: list[str]) -> str:
    """Markdown."""
    if not lines:
        return "No rows yet."
    return "\n".join([f"| {HEAD} |", f"|{' --- |' * (HEAD.count('|') + 1)}", *lines])


def after_training(folder: Path, solver: str) -> list[str]:
    """`match_firing`, by data and bits."""
    sides = [
        (f"{data} | W{bits}", *(chosen(folder, data=data, bits=bits, solver=solver, matched=m) for m in (False, True)))
        for data in DATA
        for bits in BITS
    ]
    return [line(*side) for side in sides if side[1] and side[2]]


def in_training(folder: Path) -> list[str]:
    """`RateDistribution`, by data and bits."""
    sides = [
        (f"{data} | W{bits}", *(training_rows(folder, data=data, bits=bits, weight=w, **LSQ) for w in (0.0, WEIGHT)))
        for data in DATA
        for bits in TRAINING_BITS
    ]
    return [line(*side) for side in sides if side[1] and side[2]]


def beside_lqnet(folder: Path) -> list[str]:
    """LQ-Net, and LSQ with the term alone or with `match_firing` behind it, at 2 bits."""
    ways = (("the term", {**LSQ, "weight": WEIGHT}), ("the term, matched after", BOTH))
    sides = [
        (f"{data} | W2, {way}", *(training_rows(folder, data=data, bits=2, **k) for k in (LQNET, fields)))
        for data in DATA
        for way, fields in ways
    ]
    return [line(*side) for side in sides if side[1] and side[2]]


def write_table(folder: Path) -> None:
    """`firing.md` beside this file."""
    used = [row for data in DATA for row in chosen(folder, data=data)] + training_rows(folder)
    matched = [row for row in used if row.get("matched")]
    moved = np.array([row["channels_moved"] for row in matched]).sum((0, 1))
    text = f"""# Firing-preserving quantization

Conv network of `spikequant.models.mnist_net` (T = 8, direct coding), membranes 8 bits unsigned. EMD: distance of the
rates' distribution from the float network's on the whole test set (10,000 images), mean over both spiking layers, in
spikes per step; floor: two halves of the test set in the float network. Matched L1: each neuron against itself.
Points lost against the float network, negative is a gain; paired over samples, averaged over the seeds of each
sample, 95 % interval (normal).

## After training: `match_firing`

`sq.calibrate` and then `sq.match_firing` on the same 2,048 training images, no labels, no gradients; every other
image is searched on, the rest judges. Weights to the nearest level:

{table(after_training(folder, "nearest"))}

Weights by the second-order solver ([one-shot weights](one_shot.md)):

{table(after_training(folder, "second_order"))}

{moved[0]} of {moved[1]} channels kept a shift of threshold or bias, the others were no better on the judging images.

## In training: `RateDistribution`

LSQ weights, one epoch on the first {TRAINING_SAMPLES:,} training images from the calibrated float network, without and
with `RateDistribution(float_model, weight={WEIGHT:g})`.

{table(in_training(folder))}

LQ-Net weights trained in the same way (*without*), beside LSQ weights with the term, alone or with `match_firing`
behind the training (*with*):

{table(beside_lqnet(folder))}

The term looks at sorted rates, `match_firing` at each neuron against itself: behind the term it lowers the matched L1,
and the EMD as well; a layer whose EMD rises on the judging images goes back (commit fcd0a9c).

Differences between simulation and integer network in all spikes and states of 64 test images, {len(used)} rows:
{sum(row["verify_differences"] for row in used)}.

Command: `python benchmarks/firing.py`. Machine: {platform.machine()}, 2 cores, no GPU, torch {torch.__version__}.
Commits of the rows: {", ".join(sorted({row["commit"] for row in used}))}.
"""
    write_text(Path(__file__).with_name("firing.md"), text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in [] if given.table else map(int, given.seeds.split(",")):
        for row in (row for data in DATA for row in rows(data, seed)):
            if not (given.folder / row.name).exists():
                write_text(given.folder / row.name, json.dumps(measured(row, given.folder)))
        for training in trainings(seed):
            if not (given.folder / training.name).exists():
                write_text(given.folder / training.name, json.dumps(trained(training, given.folder)))
    write_table(given.folder)

"""Rows of post-training quantization: nearest and second-order weights, with and without matched firing.

One row is one data set, seed, weight width, weight solver, and whether firing was matched, kept as JSON in
the work folder; what is there is not measured again::

    SPIKEQUANT_DATA=... python benchmarks/ptq_rows.py --seeds 0,1
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from accuracy import batches, float_model
from torch import nn

import spikequant as sq
from spikequant.analyse.probe import Observation, observe
from spikequant.law.atomic import write_text
from spikequant.measure import emd, matched_l1

FOLDER = Path("runs/ptq")
CALIBRATION_BATCHES = 16
DATA = ("mnist", "fashion-mnist")


@dataclass(frozen=True)
class Row:
    """What one row quantizes, and how."""

    data: str
    seed: int
    bits: int
    solver: str
    matched: bool

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.data}-{self.seed}-w{self.bits}-{self.solver}{'-matched' if self.matched else ''}.json"


def rows(data: str, seed: int) -> list[Row]:
    """All rows of one float network, those with goals first."""
    return [
        *(Row(data, seed, bits, solver, False) for bits in (4, 3, 2) for solver in ("second_order", "nearest")),
        *(Row(data, seed, bits, solver, True) for bits in (2, 3, 4) for solver in ("nearest", "second_order")),
        *(Row(data, seed, bits, "nearest", matched) for bits in (6, 8) for matched in (False, True)),
    ]


@cache
def reference(data: str, seed: int, folder: Path) -> tuple[nn.Module, Observation]:
    """The float network and what it does on the test set."""
    model = float_model(data, seed, folder)
    return model, observe(model, batches(data, seed)[1], operations=False)


def measured(row: Row, folder: Path) -> dict[str, object]:
    """Quantize, calibrate, match where asked, freeze, verify, and look at the whole test set."""
    started = time.time()
    real, seen = reference(row.data, row.seed, folder)
    train, test = batches(row.data, row.seed)
    example = next(iter(test))[0][:64]
    model = copy.deepcopy(real)
    plan = sq.Plan.uniform(weight_bits=row.bits, membrane_bits=8, membrane_signed=False)
    sq.quantize_(model, plan, example, quiet=True)
    report = sq.calibrate(model, train, max_batches=CALIBRATION_BATCHES, weight_solver=row.solver)
    match = sq.match_firing(model, real, train, max_batches=CALIBRATION_BATCHES) if row.matched else None
    sq.freeze(model)
    seconds = time.time() - started
    found = observe(model, test, operations=False)
    return {
        "data": row.data, "seed": row.seed, "bits": row.bits, "solver": row.solver, "matched": row.matched,
        "float_wrong": wrong(seen), "wrong": wrong(found), "samples": len(found.right),
        "layers": {path: distances(seen, found, path) for path in found.firing},
        "response_error": {s.path: [s.nearest, s.solved] for s in report.solved},
        "channels_moved": [] if match is None else [[layer.moved, layer.channels] for layer in match.layers],
        "verify_differences": sq.verify(model, sq.lower(model, example), example).differences,
        "seconds": seconds, "commit": commit(),
    }  # fmt: skip


def wrong(seen: Observation) -> list[int]:
    """Numbers of the samples that were classified wrong."""
    return [int(k) for k in np.flatnonzero(~seen.right)]


def distances(real: Observation, found: Observation, path: str) -> dict[str, float]:
    """How far the rates of one layer moved, and the floor: two halves of the data in the float network."""
    r, s = real.firing[path], found.firing[path]
    return {
        "emd": emd(r.rates(), s.rates()),
        "floor": emd(*r.halves()),
        "matched_l1": matched_l1(r.rates(), s.rates()),
        "float_rate": float(r.rates().mean()),
        "rate": float(s.rates().mean()),
    }


def commit() -> str:
    """The commit that was measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def found_rows(folder: Path) -> list[dict]:
    """Every row that is there."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*-w*-*.json"))]


def lost_points(rows: list[dict]) -> np.ndarray:
    """Points of accuracy lost, per test sample, averaged over the seeds of `rows`: their mean is the loss."""
    lost = np.zeros((len(rows), rows[0]["samples"]))
    for k, row in enumerate(rows):
        lost[k, row["wrong"]] += 100.0
        lost[k, row["float_wrong"]] -= 100.0
    return lost.mean(0)


def mean_and_half(values: np.ndarray) -> tuple[float, float]:
    """Mean and half of its 95 % interval (normal, over samples)."""
    return float(values.mean()), 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5


def main() -> None:
    """Measure what is missing, seed after seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for seed in map(int, given.seeds.split(",")):
        for data in given.data.split(","):
            for row in rows(data, seed):
                if not (given.folder / row.name).exists():
                    record = measured(row, given.folder)
                    write_text(given.folder / row.name, json.dumps(record))
                    print(row.name, f"{mean_and_half(lost_points([record]))[0]:+.2f} points lost", flush=True)


if __name__ == "__main__":
    main()

"""Accuracy of MNIST and Fashion-MNIST before and after quantization; writes `accuracy.md` beside this file.

One row is one data set, seed and method, kept as JSON under the work folder, so that the
table grows and an interrupted run goes on::

    SPIKEQUANT_DATA=... python benchmarks/accuracy.py                      # rows that are missing, then the table
    SPIKEQUANT_DATA=... python benchmarks/accuracy.py --data mnist         # one data set only
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import spikequant as sq
from spikequant.analyse import Comparison, compare
from spikequant.data import ArrayBatches, load_fashion_mnist, load_mnist
from spikequant.law.atomic import write_text
from spikequant.models import mnist_net

LOADERS = {"mnist": load_mnist, "fashion-mnist": load_fashion_mnist}
NONE = {"mnist": 0, "fashion-mnist": 0}
FLOAT_EPOCHS = {"mnist": 5, "fashion-mnist": 3}
T_95 = {2: 12.706, 3: 4.303}


@dataclass(frozen=True)
class Method:
    """One way to quantize, and the goal of the issue in points of accuracy lost (None: no goal)."""

    name: str
    plan: sq.Plan
    epochs: dict[str, int]
    goals: dict[str, float | None]


def methods() -> list[Method]:
    """The rows of the table."""
    unsigned = {"membrane_signed": False}
    return [
        Method(
            "W4/U8 PTQ",
            sq.Plan.uniform(weight_bits=4, membrane_bits=8, **unsigned),
            NONE,
            {"mnist": 0.3, "fashion-mnist": 0.5},
        ),
        Method(
            "W8/U4 PTQ",
            sq.Plan.uniform(weight_bits=8, membrane_bits=4, **unsigned),
            NONE,
            {"mnist": None, "fashion-mnist": None},
        ),
        Method(
            "W2/U4 QAT",
            sq.Plan.uniform(
                weight_bits=2, weight_quantizer="lsq", membrane_bits=4, membrane_rounding="half_up", **unsigned
            ),
            {"mnist": 2, "fashion-mnist": 3},
            {"mnist": 0.5, "fashion-mnist": 1.0},
        ),
        Method(
            "W1/U8 QAT",
            sq.Plan.uniform(weight_bits=1, membrane_bits=8, membrane_rounding="half_up", **unsigned),
            {"mnist": 2, "fashion-mnist": 2},
            {"mnist": 1.0, "fashion-mnist": None},
        ),
    ]


def batches(name: str, seed: int) -> tuple[ArrayBatches, ArrayBatches]:
    """Training and test batches, pixels in [0, 1]."""
    data = LOADERS[name]()
    train = ArrayBatches(data.train.x, data.train.y, batch_size=128, shuffle=True, seed=seed, scale=1 / 255)
    return train, ArrayBatches(data.test.x, data.test.y, batch_size=500, scale=1 / 255)


def float_model(name: str, seed: int, folder: Path) -> nn.Module:
    """The real network, trained once; every other row starts from it."""
    torch.manual_seed(seed)
    model = mnist_net()
    train, _ = batches(name, seed)
    sq.fit(
        model, train, epochs=FLOAT_EPOCHS[name], lr=3e-3, checkpoint=folder / f"{name}-{seed}.safetensors", quiet=True
    )
    return model


def quantized_row(name: str, seed: int, method: Method, folder: Path) -> dict[str, object]:
    """Quantize, calibrate, train on where asked, freeze, compare, lower, verify."""
    started = time.time()
    reference = float_model(name, seed, folder)
    model = copy.deepcopy(reference)
    train, test = batches(name, seed)
    example = next(iter(test))[0][:64]
    sq.quantize_(model, method.plan, example, quiet=True)
    report = sq.calibrate(model, train)
    epochs = method.epochs[name]
    if epochs:
        sq.fit(
            model,
            train,
            epochs=epochs,
            lr=1.5e-3,
            checkpoint=folder / f"{name}-{seed}-{slug(method)}.safetensors",
            quiet=True,
        )
    before = sq.evaluate(model, test)
    sq.freeze(model)
    found: Comparison = compare(reference, model, test)
    after = sq.evaluate(model, test)
    verified = sq.verify(model, sq.lower(model, example), example)
    return {
        "data": name,
        "seed": seed,
        "method": method.name,
        "comparison": found.to_dict(),
        "freeze_changes_predictions": int((before.predictions != after.predictions).sum()),
        "verify_differences": verified.differences,
        "rates_apart": [abs(layer.rate - layer.wide_rate) / layer.wide_rate for layer in report.layers],
        "roundings": [layer.rounding for layer in report.layers],
        "seconds": time.time() - started,
        "commit": commit(),
    }


def slug(method: Method) -> str:
    """The method's name in a file name."""
    return method.name.lower().replace("/", "").replace(" ", "-")


def commit() -> str:
    """The commit that was measured."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def interval(values: list[float]) -> str:
    """Mean and 95 % interval over seeds (Student's t)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:+.2f}"
    half = T_95[len(values)] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:+.2f} ± {half:.2f}"


def table(folder: Path) -> str:
    """Markdown of all rows that are there."""
    lines = [
        "| data | method | seeds | float % | quantized % | change, points (95 %) | goal | EMD (floor) "
        "| dead, float → quantized | KiB, float → quantized |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in LOADERS:
        for method in methods():
            rows = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{name}-?-{slug(method)}.json"))]
            if rows:
                lines.append(table_row(name, method, rows))
    return "\n".join(lines)


def table_row(name: str, method: Method, rows: list[dict]) -> str:
    """One method over its seeds."""
    found = [row["comparison"] for row in rows]

    def mean(get: Callable[[dict], float]) -> float:
        return float(np.mean([get(c) for c in found]))

    neurons = [[layer["neurons"] for layer in c["layers"]] for c in found]
    dead_before = float(
        np.mean(
            [
                np.average([x["reference_dead"] for x in c["layers"]], weights=n)
                for c, n in zip(found, neurons, strict=True)
            ]
        )
    )
    goal = method.goals[name]
    size = {
        side: mean(lambda c, s=side: (c[s]["flash_bytes"] + c[s]["ram_bytes"]) / 1024)
        for side in ("reference", "quantized")
    }
    return (
        f"| {name} | {method.name} | {len(rows)} | {100 * mean(lambda c: c['reference']['accuracy']):.2f} "
        f"| {100 * mean(lambda c: c['quantized']['accuracy']):.2f} "
        f"| {interval([c['difference_points'] for c in found])} | {'' if goal is None else f'≥ -{goal}'} "
        f"| {mean(lambda c: c['emd']):.4f} ({mean(lambda c: c['emd_floor']):.4f}) "
        f"| {dead_before:.1%} → {mean(lambda c: c['dead']):.1%} | {size['reference']:.0f} → {size['quantized']:.1f} |"
    )


NOTES = """## Goals that were missed, and what to try next

- MNIST float >= 99.0 %: 98.96 % over three seeds. Training accuracy is 99.7 %: the network overfits in five
  epochs without augmentation. Next: shifts by one pixel, or dropout in front of the readout.
- Fashion-MNIST W2/U4 within 1.0 points: -1.13 on the one seed that was run (three epochs at two bits). Next: more
  epochs, the first layer at four bits (it alone costs half a point at four bits), distillation from the float network.
- Three seeds on every row: the column `seeds` says how many there are; a row of one seed has no interval.
- The rows are of the commits below. Since then `compare` also counts input, spike and readout buffers (a few KiB here)
  and takes the floor between even and odd samples instead of even and odd batches.
"""


def write_table(folder: Path) -> None:
    """`accuracy.md` beside this file."""
    rows = [json.loads(p.read_text()) for p in sorted(folder.glob("*-?-*.json"))]
    checks = (
        f"{len(rows)} rows; predictions changed by `freeze`: {sum(r['freeze_changes_predictions'] for r in rows)}; "
        f"differences between simulation and golden model: {sum(r['verify_differences'] for r in rows)}; "
        f"largest shift of a layer's firing rate by the calibrated membrane, W8/U4 PTQ: "
        f"{max((max(r['rates_apart']) for r in rows if r['method'] == 'W8/U4 PTQ'), default=float('nan')):.1%}."
    )
    epochs = f"{FLOAT_EPOCHS['mnist']} epochs on MNIST and {FLOAT_EPOCHS['fashion-mnist']} on Fashion-MNIST"
    machine = f"{platform.machine()}, 2 cores, no GPU, torch {torch.__version__}"
    commits = ", ".join(sorted({r["commit"] for r in rows}))
    text = f"""# Accuracy before and after quantization

Conv network of `spikequant.models.mnist_net` (16C5-BN-MP2-LIF-64C3s2-BN-LIF-FC10, T = 8, direct coding), whole
training and test sets, no augmentation; float {epochs},
2 epochs of quantization-aware training from the float checkpoint (W2/U4 on Fashion-MNIST: 3). Paired
differences on the test set, mean and 95 % interval over seeds (Student's t). EMD floor:
two halves of the test set in the float network.

{table(folder)}

{checks}

{NOTES}
Command: `python benchmarks/accuracy.py`. Machine: {machine}. Commits of the rows: {commits}.
"""
    write_text(Path(__file__).with_name("accuracy.md"), text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="mnist,fashion-mnist")
    parser.add_argument("--methods", default="", help="slugs such as w4u8-ptq, comma-separated; default: all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in map(int, given.seeds.split(",")):
        for name in given.data.split(","):
            for method in methods():
                if given.methods and slug(method) not in given.methods.split(","):
                    continue
                target = given.folder / f"{name}-{seed}-{slug(method)}.json"
                if not target.exists():
                    row = quantized_row(name, seed, method, given.folder)
                    target.write_text(json.dumps(row))
                    print(
                        name,
                        seed,
                        method.name,
                        row["comparison"]["difference_points"],
                        f"{row['seconds']:.0f} s",
                        flush=True,
                    )
    write_table(given.folder)

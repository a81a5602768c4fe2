"""Every quantizer at every width, after training and in training, on MNIST and Fashion-MNIST; writes `quantizers.md`.

A row is one data set, quantizer, width and way; it is a line of `quantizers.jsonl` beside this file, so that an
interrupted run goes on and a quantizer that is registered later gets its rows::

    SPIKEQUANT_DATA=... python benchmarks/quantizers.py run       # rows that are missing, then the page
    SPIKEQUANT_DATA=... python benchmarks/quantizers.py run --only lqnet/sigmoid_sum --data mnist
    python benchmarks/quantizers.py table                         # the page out of the rows that are there
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import platform
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import spikequant as sq
from spikequant.analyse.compare import paired_difference
from spikequant.analyse.probe import Observation, observe
from spikequant.data import ArrayBatches, load_fashion_mnist, load_mnist
from spikequant.law.atomic import write_text
from spikequant.law.errors import PlanError, SpikequantError
from spikequant.measure import c_memory, emd, network_emd
from spikequant.models.conv import ConvSNN
from spikequant.plan import TensorRole
from spikequant.quantizers import QUANTIZERS

HERE = Path(__file__).parent
RESULTS = HERE / "quantizers.jsonl"
LOADERS = {"mnist": load_mnist, "fashion-mnist": load_fashion_mnist}
BITS = (1, 2, 3, 4, 8)
WAYS = ("PTQ", "QAT")
FLOAT_EPOCHS, QAT_SAMPLES, CALIBRATION_SAMPLES = 2, 12_000, 512
MEMBRANE = {"bits": 8, "signed": False, "rounding": "half_up"}


MEMBRANES = {
    "membrane: uniform, signed": {"signed": True},
    "membrane: uniform": {"signed": False},
    "membrane: learned": {"levels": "learned"},
    "membrane: threshold_centred": {"signed": False, "levels": "threshold_centred"},
}
"""Grids of the membrane under 8-bit weights; the roundings are left to `calibrate`."""
MEMBRANE_BITS = (2, 3, 4)


def plan_of(name: str, bits: int) -> sq.Plan:
    """The plan of a row: the weights or, by the names of `MEMBRANES`, the membranes in few bits."""
    if name in MEMBRANES:
        layer = {"weight": role("uniform", 8), "membrane": {"bits": bits, **MEMBRANES[name]}}
    else:
        shared = {"unit": "weight"} if name == "shared_scale" else {}
        layer = {"weight": role(name, bits), "membrane": {**MEMBRANE, **shared}}
    return sq.Plan.from_dict({"rules": [{"match": "*", **layer}]})


def role(name: str, bits: int) -> dict[str, Any]:
    """The weight role of a row.

    Raises:
        PlanError: the quantizer has no such width; the message says why.
    """
    if name not in QUANTIZERS:
        raise PlanError(f"{name}: no such quantizer")
    fields = {field.name for field in dataclasses.fields(QUANTIZERS[name])}  # type: ignore[arg-type]
    found: dict[str, Any] = {"quantizer": name}
    if name == "threshold_centred":
        raise PlanError("threshold_centred: weights have no threshold; its rows are those of the membrane")
    if name == "fixed_point" and bits == 1:
        raise PlanError("fixed_point: Q1.0 holds -1 and 0 only, no weights to speak of")
    if name == "fixed_point":
        found["options"] = {"format": f"Q1.{bits - 1}"}
    elif "bits" in fields:
        found["bits"] = bits
    elif getattr(QUANTIZERS[name], "bits", None) != bits:
        raise PlanError(f"{name}: it has {QUANTIZERS[name].bits} bits, always")
    if name in ("uniform", "power_of_two"):
        found["clipping"] = "mse"
    if name == "sigmoid_sum":  # one epoch of 20 (epoch + 1) would end at soft steps
        found["options"] = {"schedule": "to_cap", "temperature_cap": 200.0}
    TensorRole.model_validate(found).build(name)
    return found


def rows() -> Iterator[tuple[str, str, int, str]]:
    """Data set, quantizer, bits and way of every row that has a meaning; data sets in turns."""
    weights = [(name, bits) for bits in BITS for name in QUANTIZERS if refusal(name, bits) is None]
    lines = [*weights, *((name, bits) for bits in MEMBRANE_BITS for name in MEMBRANES)]
    yield from ((data, name, bits, way) for way in WAYS for name, bits in lines for data in LOADERS)


def refusal(name: str, bits: int) -> str | None:
    """Why a quantizer has no row at a width; None if it has."""
    try:
        role(name, bits)
    except PlanError as error:
        return str(error)
    return None


@cache
def batches(data: str) -> dict[str, ArrayBatches]:
    """Training, the part of it for training on, calibration and test; pixels in [0, 1]."""
    found = LOADERS[data]()
    part = np.random.default_rng(0).permutation(len(found.train.y))[:QAT_SAMPLES]
    few = part[:CALIBRATION_SAMPLES]
    return {
        "train": ArrayBatches(found.train.x, found.train.y, batch_size=128, shuffle=True, scale=1 / 255),
        "qat": ArrayBatches(found.train.x[part], found.train.y[part], batch_size=64, shuffle=True, scale=1 / 255),
        "calibration": ArrayBatches(found.train.x[few], found.train.y[few], batch_size=128, scale=1 / 255),
        "test": ArrayBatches(found.test.x, found.test.y, batch_size=500, scale=1 / 255),
    }


@cache
def reference(data: str, folder: Path) -> tuple[nn.Module, Observation]:
    """The real network, trained once and kept as a checkpoint, and what it does on the test set."""
    torch.manual_seed(0)
    model = ConvSNN(channels=(8, 16), kernel=3, steps=4)
    path = folder / f"quantizers-{data}.safetensors"
    sq.fit(model, batches(data)["train"], epochs=FLOAT_EPOCHS, lr=3e-3, checkpoint=path, quiet=True)
    return model, observe(model, batches(data)["test"], operations=False)


def measured(data: str, name: str, bits: int, way: str, folder: Path) -> dict[str, Any]:
    """One row: quantize, calibrate, train on where asked, freeze, lower, verify, measure."""
    started = time.process_time()
    real, before = reference(data, folder)
    model, given = copy.deepcopy(real), batches(data)
    example = next(iter(given["test"]))[0][:32]
    torch.manual_seed(1)
    sq.quantize_(model, plan_of(name, bits), example, quiet=True)
    sq.calibrate(model, given["calibration"])
    if way == "QAT":
        sq.fit(model, given["qat"], epochs=1, lr=1.5e-3, quiet=True)
    sq.freeze(model)
    net = sq.lower(model, example)
    after = observe(model, given["test"], operations=False)
    memory = c_memory(net)
    difference, interval = paired_difference(before.right, after.right)
    found = {path: emd(before.firing[path].rates(), after.firing[path].rates()) for path in before.firing}
    return {
        "data": data,
        "quantizer": name,
        "bits": bits,
        "way": way,
        "float": float(before.right.mean()),
        "accuracy": float(after.right.mean()),
        "difference": difference,
        "interval": interval,
        "emd": network_emd(found),
        "emd_floor": network_emd({path: emd(*firing.halves()) for path, firing in before.firing.items()}),
        "flash": memory.flash,
        "weights": sum(layer.weights for layer in memory.layers),
        "ram": memory.ram,
        "verify_differences": sq.verify(model, net, example).differences,
        "seconds": time.process_time() - started,
        "commit": commit(),
    }


def commit() -> str:
    """The commit that was measured."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=HERE
    )
    return done.stdout.strip() or "unknown"


def kept(path: Path) -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(given: argparse.Namespace) -> None:
    """Measure what is missing, a line at a time."""
    given.folder.mkdir(parents=True, exist_ok=True)
    only = given.only.split("/") if given.only else [*QUANTIZERS, *MEMBRANES]
    wanted = [r for r in rows() if r[0] in given.data.split(",") and r[1] in only]
    done = 0
    for data, name, bits, way in reversed(wanted) if given.backwards else wanted:
        there = {(r["data"], r["quantizer"], r["bits"], r["way"]) for r in kept(given.results)}  # others may work, too
        if (data, name, bits, way) in there or done == given.at_most:
            continue
        try:
            found = measured(data, name, bits, way, given.folder)
        except SpikequantError as error:
            found = {"data": data, "quantizer": name, "bits": bits, "way": way, "refused": str(error).splitlines()[0]}
        with given.results.open("a") as file:
            file.write(json.dumps(found) + "\n")
        done += 1
        print(data, name, bits, way, found.get("refused") or f"{found['difference']:+.2f} {found['seconds']:.0f} s")


def table(data: str, found: list[dict[str, Any]]) -> str:
    """Markdown of one data set: a line per quantizer and width, both ways beside each other."""
    mine = {(r["quantizer"], r["bits"], r["way"]): r for r in found if r["data"] == data and "refused" not in r}
    lines = [
        "| quantizer | bits | PTQ %, change (95 %) | EMD | QAT %, change (95 %) | EMD | weights, B | flash, B |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, bits in sorted(
        {key[:2] for key in mine}, key=lambda key: ([*QUANTIZERS, *MEMBRANES].index(key[0]), key[1])
    ):
        ways = [mine.get((name, bits, way)) for way in WAYS]
        cells = [cell for one in ways for cell in (accuracy(one), "" if one is None else f"{one['emd']:.4f}")]
        last = next(one for one in reversed(ways) if one is not None)
        lines.append(f"| {name} | {bits} | {' | '.join(cells)} | {last['weights']:,} | {last['flash']:,} |")
    return "\n".join(lines)


def accuracy(found: dict[str, Any] | None) -> str:
    """Accuracy and its paired change against the real network, in points."""
    if found is None:
        return ""
    return f"{100 * found['accuracy']:.2f}, {found['difference']:+.2f} ± {found['interval']:.2f}"


def best(found: list[dict[str, Any]]) -> str:
    """Markdown: of each width and way the weights with the highest accuracy and those with the lowest EMD."""
    lines = ["| data | bits | way | highest accuracy | lowest EMD |", "| --- | --- | --- | --- | --- |"]
    for data, bits, way in ((d, b, w) for d in LOADERS for b in BITS for w in WAYS):
        rows = [
            r for r in found if (r["data"], r["bits"], r["way"]) == (data, bits, way) and r["quantizer"] in QUANTIZERS
        ]
        if rows:
            top, near = max(rows, key=lambda r: r["accuracy"]), min(rows, key=lambda r: r["emd"])
            lines.append(
                f"| {data} | {bits} | {way} | {top['quantizer']}, {top['difference']:+.2f} ± {top['interval']:.2f} | "
                f"{near['quantizer']}, {near['emd']:.4f} |"
            )
    return "\n".join(lines)


def left_out(found: list[dict[str, Any]]) -> str:
    """Widths that a quantizer does not have, and rows that a network refused, with the reason."""
    lines = [f"- {reason}" for name in QUANTIZERS for bits in BITS if (reason := refusal(name, bits)) is not None]
    lines += [
        f"- {r['data']}, {r['quantizer']}, {r['bits']} bits, {r['way']}: {r['refused']}"
        for r in found
        if "refused" in r
    ]
    return "\n".join(dict.fromkeys(lines))


def write_page(results: Path) -> None:
    """`quantizers.md` beside this file."""
    found = kept(results)
    good = [r for r in found if "refused" not in r]
    facts = {data: next((r for r in good if r["data"] == data), None) for data in LOADERS}
    sections = "\n\n".join(
        f"## {data}: float32 {100 * one['float']:.2f} %, EMD floor {one['emd_floor']:.4f}\n\n{table(data, found)}"
        for data, one in facts.items()
        if one is not None
    )
    text = f"""# Every quantizer at every width

Weights of all layers by the quantizer of the row, one scale per output channel (one in all for the readout); membranes
in 8 unsigned bits, rounded half up (`shared_scale`: in units of the weights); input in 8 bits.
Network: 8C3-BN-MP2-LIF-16C3s2-BN-LIF-FC10, T = 4, direct coding, small on purpose: a row is measured in seconds, and
few weights make a quantizer's error visible.
Float: {FLOAT_EPOCHS} epochs on the whole training set, one seed. PTQ: `calibrate` on {CALIBRATION_SAMPLES} images.
QAT: one epoch on {QAT_SAMPLES:,} training images in batches of 64, from the same checkpoint after `calibrate`, Adam
1.5e-3, cosine; the temperature of `sigmoid_sum` rises from 20 to 200 in it.
Accuracy on the whole test set, after `freeze`; change against the float network in points, paired, 95 % interval over
images (not over seeds). EMD: mean over the two spiking layers; its floor: two halves of the test set in the float
network. Memory: bytes of the exported C arrays, after QAT where it was run. The last rows of a table have the
membrane in few bits instead, under uniform 8-bit weights.
Each row was lowered and verified: {sum(r["verify_differences"] for r in good)} differences in {len(good)} rows.

What QAT is here is a budget, the same for all: a quantizer that needs a long schedule (`sigmoid_sum` and its
temperature) shows what one epoch gives, not what it can do. `fixed_point` has the range of its format and no scale:
its weights in Q1.f are far below 1, and few bits leave nothing of them.

## The best of each width

Intervals of neighbours overlap: the first of a line is not proven better than the second.

{best(good)}

{sections}

## Combinations without a row

{left_out(found)}

Command: `python benchmarks/quantizers.py run`.
Machine: {platform.machine()}, 2 cores, no GPU, torch {torch.__version__}.
Commits of the rows: {", ".join(sorted({r["commit"] for r in good}))}.
"""
    write_text(HERE / "quantizers.md", text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", default=",".join(LOADERS))
    parser.add_argument("--only", default="", help="names of quantizers with / between them; default: all")
    parser.add_argument("--folder", type=Path, default=Path("runs/quantizers"), help="where the float checkpoints lie")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--at-most", type=int, default=-1, help="rows of this call; default: all that are missing")
    parser.add_argument("--backwards", action="store_true", help="from the end, for a second process")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments)
    write_page(arguments.results)

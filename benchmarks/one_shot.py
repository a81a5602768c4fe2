"""One-shot second-order weights beside nearest ones; measures the rows that are missing and writes `one_shot.md`.

SPIKEQUANT_DATA=... python benchmarks/one_shot.py          # rows that are missing, then the table
SPIKEQUANT_DATA=... python benchmarks/one_shot.py --table      # the table of the rows that are there
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from ptq_rows import DATA, FOLDER, found_rows, lost_points, mean_and_half, measured, rows

from spikequant.law.atomic import write_text

GOALS = {("mnist", 4): 0.2, ("fashion-mnist", 4): 0.5}
BITS = (4, 3, 2)


def chosen(folder: Path, **fields: object) -> list[dict]:
    """Rows with these fields, by seed."""
    found = [row for row in found_rows(folder) if all(row[k] == v for k, v in fields.items())]
    return sorted(found, key=lambda row: row["seed"])


def loss(found: list[dict]) -> str:
    """Points lost with their interval."""
    mean, half = mean_and_half(lost_points(found))
    return f"{mean:+.2f} ± {half:.2f}"


def gained(one: list[dict], other: list[dict]) -> str:
    """Points that `one` keeps and `other` loses, paired over samples, of the seeds that both have."""
    seeds = {row["seed"] for row in one} & {row["seed"] for row in other}
    if not seeds:
        return ""
    sides = [lost_points([row for row in side if row["seed"] in seeds]) for side in (other, one)]
    mean, half = mean_and_half(sides[0] - sides[1])
    return f"{mean:+.2f} ± {half:.2f}"


def network_emd(found: list[dict], key: str = "emd") -> float:
    """Mean over layers and seeds."""
    return float(np.mean([[layer[key] for layer in row["layers"].values()] for row in found]))


def accuracy(found: list[dict], key: str) -> float:
    """Per cent right, mean over seeds."""
    return float(np.mean([100 * (1 - len(row[key]) / row["samples"]) for row in found]))


def response(found: list[dict]) -> str:
    """Relative error of the membranes' response, nearest to solved, layer by layer."""
    before, after = (np.mean([[e[k] for e in row["response_error"].values()] for row in found], axis=0) for k in (0, 1))
    return ", ".join(f"{a:.4f} → {b:.4f}" for a, b in zip(before, after, strict=True))


HEAD = (
    "data | weights | seeds | float % | nearest: points lost | second order: points lost | goal "
    "| second order keeps, paired | EMD nearest, second order (floor)"
)


def table(folder: Path) -> list[str]:
    """Markdown of all rows that are there."""
    lines = [f"| {HEAD} |", f"|{' --- |' * (HEAD.count('|') + 1)}"]
    for data, bits in ((data, bits) for data in DATA for bits in BITS):
        near, second = (
            chosen(folder, data=data, bits=bits, solver=solver, matched=False) for solver in ("nearest", "second_order")
        )
        if near and second:
            goal = GOALS.get((data, bits))
            lines.append(
                f"| {data} | W{bits} | {len(second)} | {accuracy(second, 'float_wrong'):.2f} | {loss(near)} "
                f"| {loss(second)} | {'' if goal is None else f'≤ {goal}'} | {gained(second, near)} "
                f"| {network_emd(near):.4f}, {network_emd(second):.4f} ({network_emd(second, 'floor'):.4f}) |"
            )
    return lines


def errors(folder: Path) -> list[str]:
    """The error that the solver makes smaller."""
    lines = ["| data | weights | conv1 | conv2 | fc |", "| --- | --- | --- | --- | --- |"]
    for data in DATA:
        for bits in BITS:
            found = chosen(folder, data=data, bits=bits, solver="second_order", matched=False)
            if found:
                lines.append(f"| {data} | W{bits} | {response(found).replace(', ', ' | ')} |")
    return lines


def write_table(folder: Path) -> None:
    """`one_shot.md` beside this file."""
    used = [row for row in found_rows(folder) if not row["matched"] and row["bits"] in BITS]
    differences = sum(row["verify_differences"] for row in used)
    times = [[row["seconds"] for row in used if row["solver"] == solver] for solver in ("nearest", "second_order")]
    near, second = (float(np.median(seconds)) for seconds in times)
    text = f"""# One-shot second-order weights

Conv network of `spikequant.models.mnist_net` (16C5-BN-MP2-LIF-64C3s2-BN-LIF-FC10, T = 8, direct coding), trained in
float32 (`accuracy.py`) and quantized after training: weights as the table says, membranes 8 bits unsigned, calibrated
on 2,048 training images without labels (`sq.calibrate(model, batches, max_batches=16, weight_solver=...)`).
*Nearest* is the default: clipping by squared error, scales by output error, nearest level. *Second order* chooses the
codes by the response of the membranes ([decision 0027](../docs/adr/0027-one-shot-weights-and-matched-firing.md)).
Points lost on the whole test set (10,000 images) against the float network; negative is a gain. Paired over samples,
averaged over the seeds of each sample, 95 % interval (normal). A goal is met when the interval's upper end meets it.

{chr(10).join(table(folder))}

What the solver makes smaller: the relative squared error of the membranes' response on the calibration data,
nearest → second order.

{chr(10).join(errors(folder))}

{len(used)} rows; differences between simulation and integer network in all spikes and states of 64 test images:
{differences}. Seconds to quantize, calibrate and freeze on a busy machine, median: {near:.0f} nearest,
{second:.0f} second order.

Command: `python benchmarks/one_shot.py`. Machine: {platform.machine()}, 2 cores, no GPU, torch {torch.__version__}.
Commits of the rows: {", ".join(sorted({row["commit"] for row in used}))}.
"""
    write_text(Path(__file__).with_name("one_shot.md"), text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args()
    for seed in [] if given.table else map(int, given.seeds.split(",")):
        for row in (row for data in DATA for row in rows(data, seed) if not row.matched and row.bits in BITS):
            if not (given.folder / row.name).exists():
                given.folder.mkdir(parents=True, exist_ok=True)
                write_text(given.folder / row.name, json.dumps(measured(row, given.folder)))
    write_table(given.folder)

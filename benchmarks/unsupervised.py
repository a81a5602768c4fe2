"""The unsupervised network on MNIST: accuracy, memory and time per row.

    python benchmarks/unsupervised.py run --rows itq            # float, itq, ptq, roles, wide or all; resumes
    python benchmarks/unsupervised.py table                     # prints the tables of unsupervised.md
    python benchmarks/unsupervised.py choose                    # settings beside float, on training images alone

Rows that are in unsupervised.jsonl are not run again; a row that was cut off resumes from its checkpoint.
`unsupervised_race.py` runs BindsNET beside ours.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from spikequant import data, learn

HERE = Path(__file__).parent
RESULTS = HERE / "unsupervised.jsonl"
SEEDS = (0, 1, 2)
EIGHT = {"weight": 8, "membrane": 8, "threshold": 10, "trace": 8}
FOUR = {"weight": 4, "membrane": 8, "threshold": 9, "trace": 1}
"""Registers of the rows that learn quantized; FOUR, 8 times less memory, on a grid that ends at TOP."""
TOP = 0.5
PAUSE = 3
"""Refractory steps of the rows of FOUR: their counter has 2 bits, and the bit that it saves goes to the threshold."""
COMMON = 40.0
"""Reach in mV of a neuron's own threshold above the part that all have in common."""
THREE = {"weight": 3, "membrane": 8, "threshold": 8, "trace": 4}
"""Registers of the rows that are quantized after learning."""


def row(name: str, **options: Any) -> dict[str, Any]:
    return {
        "name": name,
        "scheme": "float",
        "epochs": 1,
        "neurons": 400,
        "seed": 0,
        "bits": {},
        "rounding": "SR",
        "top": 1.0,
        "refractory": 5,
        "common": 0.0,
    } | options


def rows(which: str) -> list[dict[str, Any]]:
    floats = [row("float", epochs=e, seed=s) for e in (1, 3) for s in SEEDS]
    itq = [row("itq", scheme="itq", epochs=1, seed=s, bits=EIGHT) for s in SEEDS]
    itq += [row("itq", scheme="itq", epochs=1, seed=s, bits=FOUR, top=TOP, refractory=PAUSE) for s in SEEDS]
    itq += [
        row("itq", scheme="itq", epochs=e, seed=s, bits=FOUR, top=TOP, refractory=PAUSE, common=COMMON)
        for e in (1, 3)
        for s in SEEDS
    ]
    ptq = [row("ptq", scheme="ptq", epochs=e, seed=s, bits=THREE, rounding="RN") for e in (1, 3) for s in SEEDS]
    roles = [
        row(f"{role} alone", scheme="itq", bits={role: bits}, rounding=rounding)
        for role, widths in {"weight": (4, 8), "membrane": (6, 8), "threshold": (6, 8), "trace": (2, 4)}.items()
        for bits in widths
        for rounding in ("TR", "RN", "SR")
    ]
    wide = [row("float", neurons=1600), row("float", neurons=100)]
    moved = FOUR | {"membrane": 10, "threshold": 7}
    common = [row("itq", scheme="itq", seed=s, bits=moved, top=TOP, refractory=PAUSE, common=COMMON) for s in SEEDS]
    known = {"float": floats, "itq": itq, "ptq": ptq, "roles": roles, "wide": wide, "common": common}
    return [r for part in known.values() for r in part] if which == "all" else known[which]


def key(r: dict[str, Any]) -> str:
    bits = [f"{role[:2]}{b}" for role, b in r["bits"].items()]
    words = [r["scheme"], *bits, *([r["rounding"]] if bits else []), *([f"top{r['top']}"] if r["top"] != 1.0 else [])]
    words += [f"refractory{r['refractory']}"] if r["refractory"] != 5 else []
    words += [f"common{r['common']:g}"] if r.get("common") else []
    return " ".join([*words, f"n{r['neurons']}", f"e{r['epochs']}", f"s{r['seed']}"])


def precision_of(r: dict[str, Any]) -> learn.Precision:
    """The registers of a row."""
    precision = learn.precision_of(**r["bits"], rounding=r["rounding"])
    return precision.replace(threshold_reach_mv=r["common"], common_threshold=True) if r.get("common") else precision


def finished() -> dict[str, dict[str, Any]]:
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {record["key"]: record for record in map(json.loads, lines)}


def run(which: str, folder: Path, seeds: set[int]) -> None:
    images = data.load_mnist()
    for r in rows(which):
        if key(r) in finished() or r["seed"] not in seeds:
            continue
        float_file = folder / f"{key(r | {'scheme': 'float', 'bits': {}})}.safetensors"
        own = float_file if r["scheme"] != "itq" else folder / f"{key(r)}.safetensors"
        shorter = own.with_name(own.name.replace(f" e{r['epochs']} ", " e1 "))
        if r["epochs"] > 1 and shorter.exists() and not own.exists():
            own.write_bytes(shorter.read_bytes())  # the second pass goes on where the first one ended
        outcome = learn.experiment(
            images,
            config=learn.DiehlCook(neurons=r["neurons"], seed=r["seed"], w_max=r["top"], refractory=r["refractory"]),
            precision=precision_of(r),
            scheme=r["scheme"],
            epochs=r["epochs"],
            checkpoint=own,
            vote="proportional",
        )
        with RESULTS.open("a") as file:
            file.write(json.dumps({"key": key(r), **r, **outcome.to_dict()}) + "\n")
        print(key(r), outcome.accuracy, f"{outcome.saving:.2f}x", outcome.seconds, flush=True)


def paired(a: str, b: str) -> tuple[float, float]:
    """Difference of two runs on the same images in points, and the half-width of its 95 % interval."""
    d = np.array([int(x) - int(y) for x, y in zip(a, b, strict=True)], float)
    return 100 * float(d.mean()), 100 * 1.96 * float(d.std(ddof=1)) / math.sqrt(len(d))


def own_float(record: dict[str, Any], known: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The float row of the same size, passes and seed."""
    return known.get(f"float n{record['neurons']} e{record['epochs']} s{record['seed']}")


def memory_cells(record: dict[str, Any]) -> str:
    """Kilobytes and saving: of a row that learns quantized with its traces, of the others to infer."""
    config = learn.DiehlCook(neurons=record["neurons"], refractory=record.get("refractory", 5))
    precision = precision_of(record)
    learns = record["scheme"] == "itq"
    kilobytes = learn.memory(config, precision, learns=learns).bytes / 1000
    return f"{kilobytes:.0f} | {learn.saving(config, precision, learns=learns):.2f}"


def table() -> str:
    known = finished()
    lines = ["| row | votes: all | proportional | n-gram | to its float run, points | kB | times less | training s |"]
    lines += ["| --- " * 8 + "|"]
    for name, record in known.items():
        reference = own_float(record, known)
        against = ""
        if reference is not None and record["scheme"] != "float":
            against = "{:+.2f} +- {:.2f}".format(*paired(record["correct"], reference["correct"]))
        votes = " | ".join(f"{100 * record['accuracy'][v]:.2f}" for v in learn.VOTES)
        lines.append(f"| {name} | {votes} | {against} | {memory_cells(record)} | {record['seconds']['training']:.0f} |")
    return "\n".join([*lines, "", *averages(known)]) + "\n"


def averages(known: dict[str, dict[str, Any]]) -> list[str]:
    """Groups of rows that differ in the seed only: mean difference and its 95 % interval over seeds (Student)."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, record in known.items():
        groups.setdefault(name.rsplit(" s", 1)[0], []).append(record)
    lines = [
        "| rows over seeds | seeds | proportional, mean | to float: mean | 95 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, records in groups.items():
        mean = 100 * float(np.mean([r["accuracy"]["proportional"] for r in records]))
        pairs = [(r, own_float(r, known)) for r in records if r["scheme"] != "float"]
        d = [paired(r["correct"], f["correct"])[0] for r, f in pairs if f is not None]
        spread = f"+- {STUDENT[len(d)] * float(np.std(d, ddof=1)) / math.sqrt(len(d)):.2f}" if len(d) in STUDENT else ""
        lines.append(f"| {name} | {len(records)} | {mean:.2f} | {f'{np.mean(d):+.2f}' if d else ''} | {spread} |")
    return lines


def choose() -> None:
    """Settings beside float on 12,000 training images, tested on the last 4,000 training images."""
    images = data.load_mnist().train
    x, y, rest, target = images.x[:12_000], images.y[:4000], images.x[-4000:], images.y[-4000:]
    tried: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        (FOUR, {"w_max": TOP, "refractory": PAUSE}),
        (FOUR | {"threshold": 10}, {"w_max": TOP, "refractory": PAUSE, "nu_pre": 0.0}),
        (FOUR | {"membrane": 6, "threshold": 10}, {"w_max": TOP}),
        *(({role: FOUR[role]}, {}) for role in ("membrane", "trace")),
        ({"threshold": 8}, {}),
    ]
    for bits, changes in tried:
        config = learn.DiehlCook().replace(**changes)
        precision = learn.precision_of(**bits) if bits else learn.Precision()
        network = learn.Network(config, precision)
        learn.train(network, x, quiet=True)
        labels = learn.assign_labels(network.infer(x[:4000]), y, classes=10)
        found = learn.predict(network.infer(rest, first=4000), labels, vote="proportional") == target
        thresholds = np.quantile(network.real_adaptive(), [0.1, 0.9]).round(1).tolist()
        times = f"{learn.saving(config, precision):.3f} times less"
        print(bits, changes, f"{100 * found.mean():.2f} %, {times}, thresholds {thresholds} mV", flush=True)


STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table", "choose"))
    parser.add_argument("--rows", default="all", choices=("float", "itq", "ptq", "roles", "wide", "common", "all"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "unsupervised")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "choose":
        choose()
        return
    if given.what == "run":
        run(given.rows, given.folder, set(given.seeds))
    print(table())


if __name__ == "__main__":
    main()

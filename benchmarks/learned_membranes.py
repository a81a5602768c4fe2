"""Membranes of 2 to 4 bits, learned and uniform: accuracy and firing; writes `learned_membranes.md`.

A row is one data set, seed, width and way of placing the levels; it is a line of `learned_membranes.jsonl` beside
this file, so that an interrupted run goes on::

    SPIKEQUANT_DATA=... python benchmarks/learned_membranes.py run --data digits
    SPIKEQUANT_DATA=... python benchmarks/learned_membranes.py run --data mnist --seeds 0 1 2
    python benchmarks/learned_membranes.py table
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lq_membranes import Recorder, placed
from torch import nn

import spikequant as sq
from spikequant.analyse.probe import observe
from spikequant.data import ArrayBatches, load_digits, load_mnist
from spikequant.law.atomic import write_text
from spikequant.measure import emd, network_emd
from spikequant.models.conv import ConvSNN

HERE = Path(__file__).parent
RESULTS = HERE / "learned_membranes.jsonl"
BITS = (2, 3, 4)
UNIFORM = {
    "signed": {"signed": True},
    "unsigned": {"signed": False},
}
LEARNED = {
    "learned": '`levels = "learned"`: placed by `calibrate`, by the error of the firing rates, then kept',
    "k-means": "k-means of the real membrane, 0 kept, then kept",
    "LQ pooled": "LQ-Net, codes 0 and 1 (a level at 0), basis pooled over all steps, average 0.99, ridge 1e-2",
    "LQ per step": "LQ-Net as for weights: codes -1 and +1, a pass per time step, average 0.9, ridge 1e-4",
}


def batches(data: str) -> dict[str, Any]:
    """Training, calibration and test batches."""
    if data == "digits":
        found, scale, train, test = load_digits(), 1 / 16, None, None
    else:
        found, scale, train, test = load_mnist(), 1 / 255, 10_000, 2_000
    x, y, tx, ty = found.train.x[:train], found.train.y[:train], found.test.x[:test], found.test.y[:test]
    return {
        "train": ArrayBatches(x, y, batch_size=64, shuffle=True, scale=scale),
        "calibration": ArrayBatches(x[:256], y[:256], batch_size=64, scale=scale),
        "test": ArrayBatches(tx, ty, batch_size=200, scale=scale),
    }


def network(data: str) -> nn.Module:
    """A slow leak, so that an error of the stored membrane lives on."""
    if data == "digits":
        return ConvSNN(size=8, channels=(16, 32), kernel=3, pool=1, steps=8, leak=0.875)
    return ConvSNN(channels=(8, 16), kernel=3, steps=8, leak=0.875)


def float_network(data: str, seed: int, folder: Path) -> nn.Module:
    """Trained once per seed and kept."""
    torch.manual_seed(seed)
    model, path = network(data), folder / f"membranes-{data}-{seed}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    sq.fit(model, batches(data)["train"], epochs=8 if data == "digits" else 3, lr=4e-3, quiet=True)
    torch.save(model.state_dict(), path)
    return model


def train(model: nn.Module, given: Any, epochs: int) -> None:
    """Plain training, the same for every way."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        epoch(model, given, optimizer)


def epoch(model: nn.Module, given: Any, optimizer: torch.optim.Optimizer) -> None:
    """One pass of it."""
    model.train()
    for x, y in given:
        sq.reset(model)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()


def score(model: nn.Module, real: Any, test: Any) -> dict[str, float]:
    """Accuracy, EMD of the firing rates to the real network, dead share."""
    after = observe(model, test, operations=False)
    distances = {path: emd(real.firing[path].rates(), after.firing[path].rates()) for path in real.firing}
    rates = [rate for firing in after.firing.values() for rate in firing.rates().reshape(-1).tolist()]
    return {
        "accuracy": float(after.right.mean()),
        "emd": network_emd(distances),
        "dead": sum(rate < 0.05 for rate in rates) / len(rates),
    }


def measured(data: str, seed: int, bits: int, way: str, folder: Path, recorder: Recorder) -> dict[str, Any]:
    """One row: after training and trained on."""
    started, given = time.process_time(), batches(data)
    model = float_network(data, seed, folder)
    real = observe(model, given["test"], operations=False)
    membrane = {"bits": bits, **UNIFORM.get(way, {"levels": "learned"})}
    plan = sq.Plan.from_dict({"rules": [{"match": "*", "weight": {"bits": 8}, "membrane": membrane}]})
    quantized, example = copy.deepcopy(model), next(iter(given["test"]))[0][:32]
    torch.manual_seed(seed)
    sq.quantize_(quantized, plan, example, quiet=True)
    sq.calibrate(quantized, given["calibration"])
    if way not in UNIFORM:
        placed(quantized, way, recorder)
    ptq = score(quantized, real, given["test"])
    train(quantized, given["train"], 2 if data == "digits" else 1)
    qat = score(quantized, real, given["test"])
    twin = copy.deepcopy(model)
    train(twin, given["train"], 2 if data == "digits" else 1)
    floor = {path: emd(*firing.halves()) for path, firing in real.firing.items()}
    row = {"data": data, "seed": seed, "bits": bits, "way": way, "float": float(real.right.mean())}
    row |= {"floor": network_emd(floor), "trained_on": score(twin, real, given["test"]), "ptq": ptq, "qat": qat}
    if way != "LQ per step":  # which has no level at 0: not a neuron that can rest
        sq.freeze(quantized)
        net = sq.lower(quantized, example)
        row["verify_differences"] = sq.verify(quantized, net, example).differences
    return row | {"seconds": time.process_time() - started, "commit": commit()}


def commit() -> str:
    """The commit that was measured."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=HERE
    )
    return done.stdout.strip() or "unknown"


def kept(path: Path) -> list[dict[str, Any]]:
    """The rows that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wanted(data: str, seeds: list[int]) -> Iterator[tuple[int, int, str]]:
    """Seed, bits and way of every row, the comparison with uniform membranes first."""
    for ways in ((*UNIFORM, "learned"), [way for way in LEARNED if way != "learned"]):
        for seed in seeds:
            for bits in BITS:
                for way in ways:
                    yield seed, bits, way


def run(given: argparse.Namespace) -> None:
    """Measure what is missing, a line at a time."""
    recorder, path = Recorder(), Path(given.results)
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed, bits, way in wanted(given.data, given.seeds):
        there = {(r["data"], r["seed"], r["bits"], r["way"]) for r in kept(path)}
        if (given.data, seed, bits, way) in there:
            continue
        row = measured(given.data, seed, bits, way, given.folder, recorder)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row["bits"], way, row["seed"], row["ptq"], row["qat"], f"{row['seconds']:.0f} s", flush=True)


# -- the page -------------------------------------------------------------------------------


def over_seeds(rows: list[dict[str, Any]], read: Callable[[dict[str, Any]], float], form: str, unit: float = 1) -> str:
    """Mean and half the range over seeds."""
    values = [unit * read(row) for row in rows]
    spread = (max(values) - min(values)) / 2
    return f"{statistics.mean(values):{form}}" + (f" ± {spread:{form}}" if len(values) > 1 else "")


def table(found: list[dict[str, Any]]) -> str:
    """One data set."""
    lines = [
        "| bits | levels | seeds | after training: accuracy % | EMD | trained on: accuracy % | EMD | dead % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bits in BITS:
        for way in (*UNIFORM, *LEARNED):
            rows = [r for r in found if (r["bits"], r["way"]) == (bits, way)]
            if rows:
                cells = [
                    over_seeds(rows, lambda r: r["ptq"]["accuracy"], ".2f", 100),
                    over_seeds(rows, lambda r: r["ptq"]["emd"], ".4f"),
                    over_seeds(rows, lambda r: r["qat"]["accuracy"], ".2f", 100),
                    over_seeds(rows, lambda r: r["qat"]["emd"], ".4f"),
                    over_seeds(rows, lambda r: r["qat"]["dead"], ".1f", 100),
                ]
                lines.append(f"| {bits} | {way} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def facts(rows: list[dict[str, Any]]) -> str:
    """What the rows are measured beside."""
    first = list({row["seed"]: row for row in rows}.values())
    real, twin, moved, floor = (
        over_seeds(first, lambda r: r["float"], ".2f", 100),
        over_seeds(first, lambda r: r["trained_on"]["accuracy"], ".2f", 100),
        over_seeds(first, lambda r: r["trained_on"]["emd"], ".4f"),
        over_seeds(first, lambda r: r["floor"], ".4f"),
    )
    wrong, commits = (
        sum(row.get("verify_differences", 0) for row in rows),
        ", ".join(sorted({row["commit"] for row in rows})),
    )
    return (
        f"Float {real} %; the float network trained on in the same way {twin} %, EMD to itself before {moved}; EMD "
        f"between halves of the test set {floor}. Differences of `verify` in all {len(rows)} rows: {wrong}. "
        f"Commit {commits}."
    )


def write_page(results: Path) -> None:
    """The tables between the words that stay."""
    found, page = kept(results), HERE / "learned_membranes.md"
    text = page.read_text() if page.exists() else "<!-- tables -->\n<!-- end of tables -->\n"
    parts = []
    for data in ("digits", "mnist"):
        rows = [r for r in found if r["data"] == data]
        if rows:
            parts.append(f"### {data}\n\n{facts(rows)}\n\n{table(rows)}\n")
    begin, rest = text.split("<!-- tables -->\n")
    _, end = rest.split("<!-- end of tables -->")
    write_text(page, begin + "<!-- tables -->\n\n" + "\n".join(parts) + "\n<!-- end of tables -->" + end)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints", help="for the float networks")
    given = parser.parse_args()
    if given.what == "run":
        run(given)
    write_page(Path(given.results))


if __name__ == "__main__":
    main()

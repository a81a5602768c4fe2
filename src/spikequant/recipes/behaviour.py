"""What stands beside accuracy in the table of a reproduction: firing behaviour, its floors, the control, the claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikequant.recipes.drawing import Lines, svg
from spikequant.recipes.finetuning import LEVELS
from spikequant.recipes.reproduction import Rows, change, plain_name

CONTROL = "control"
"""The line of the rows that are trained on without quantization."""
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the goals, what was found, and whether it holds (None: rows are missing)."""

    goal: str
    found: str
    met: bool | None


def of_line(rows: Rows, line: str) -> list[Record]:
    """The rows of a line, in their order."""
    return [record for record in rows.values() if record["line"] == line]


def mean_of(records: Sequence[Record], key: str) -> float:
    """Mean of a figure over the rows that have it; NaN where none has.

    >>> mean_of([{"emd": 0.5}, {"emd": 1.0}, {}], "emd")
    0.75
    """
    values = [float(r[key]) for r in records if r.get(key) is not None]
    return sum(values) / len(values) if values else math.nan


def within(records: Sequence[Record], points: float, goal: str) -> Claim:
    """The claim that a line loses at most so many points: met if the upper end of the interval of the loss does."""
    if not records:
        return Claim(goal=goal, found="not run", met=None)
    mean, margin = change(records)
    told = f"{mean:+.2f} ± {margin:.2f} points, {_rows_of(records)}"
    return Claim(goal=goal, found=told, met=mean - margin >= -points)


def claims_section(claims: Sequence[Claim]) -> list[str]:
    """The claims as a table."""
    words = {True: "met", False: "missed", None: ""}
    lines = ["", "## Goals", "", "| goal | found | |", "| --- | --- | --- |"]
    return [*lines, *(f"| {claim.goal} | {claim.found} | {words[claim.met]} |" for claim in claims)]


def behaviour_section(rows: Rows, lines: Sequence[str], *, control: str = CONTROL, of: str = "") -> list[str]:
    """Accuracy, EMD and dead share of every line, beside what training alone moves (the line `control`)."""
    controls = {record["seed"]: record for record in of_line(rows, control)}
    every = [record for line in (control, *lines) for record in of_line(rows, line)]
    if not every:
        return []
    halves, seeds = mean_of(every, "emd_floor"), mean_of(list(controls.values()), "seed_floor")
    moved = mean_of(list(controls.values()), "emd")
    text = [
        "", f"## Firing behaviour{of}", "",
        "Interval of the change: 95 % over rows (Student's t), of a single row over its test samples (paired). *To the "
        "control*: against the float network that was trained on as long. *At once*: accuracy after calibration, "
        "before any training.",
        f"EMD is the mean over layers of the Wasserstein-1 distance between the rates of the neurons. Its floors here: "
        f"{_number(halves)} between two halves of the test set, {_number(moved)} between the float network and its "
        f"control, {_number(seeds)} between two seeds. Dead: a rate below 0.05.", "",
        "| setting | rows | at once % | after % | to float, points | to the control | EMD | dead %, before → after |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]  # fmt: skip
    for line in lines:
        records = of_line(rows, line)
        if records:
            text.append(_behaviour_line(line, records, {} if line == control else controls))
    return text


def _behaviour_line(line: str, records: Sequence[Record], controls: Mapping[int, Record]) -> str:
    mean, margin = change(records)
    beside = [100 * (r["after"] - controls[r["seed"]]["after"]) for r in records if r["seed"] in controls]
    control = f"{sum(beside) / len(beside):+.2f}" if beside else ""
    at_once = mean_of(records, "untrained")
    return (
        f"| {line} | {len(records)} | {'' if math.isnan(at_once) else f'{100 * at_once:.2f}'} "
        f"| {100 * mean_of(records, 'after'):.2f} | {mean:+.2f} ± {margin:.2f} | {control} "
        f"| {mean_of(records, 'emd'):.4f} "
        f"| {100 * mean_of(records, 'reference_dead'):.1f} → {100 * mean_of(records, 'dead'):.1f} |"
    )


def refused_section(rows: Rows) -> list[str]:
    """Rows whose integers could not be made, with the reason."""
    refused = {name: record["refused"] for name, record in rows.items() if record.get("refused")}
    if not refused:
        return []
    return ["", "Measured without integers:", "", *(f"- {name}: {why}" for name, why in refused.items())]


def curves(rows: Rows) -> dict[str, str]:
    """Loss by epoch, of the float network and of what was trained on from it; one picture for each seed."""
    found = {}
    for seed in sorted({record["seed"] for record in rows.values()}):
        lines: dict[str, list[tuple[float, float]]] = {}
        for record in (r for r in rows.values() if r["seed"] == seed and r.get("curve")):
            start = len(record.get("float_curve", ())) or _float_epochs(rows, seed)
            if record.get("float_curve"):
                lines["float"] = [(p["epoch"], p["loss"]) for p in record["float_curve"]]
            lines[record["line"]] = [(start + p["epoch"], p["loss"]) for p in record["curve"]]
        if lines:
            picture = Lines(title=f"Training loss, seed {seed}", x="epoch", y="loss", lines=lines)
            found[f"curves-{seed}.svg"] = svg(picture)
    return found


def _float_epochs(rows: Rows, seed: int) -> int:
    return max((len(r.get("float_curve", ())) for r in rows.values() if r["seed"] == seed), default=0)


def emd_by_layer(rows: Rows, lines: Sequence[str], title: str) -> dict[str, str]:
    """EMD of each layer, from input to output, one line for each setting (its first row)."""
    drawn = {}
    for line in lines:
        records = of_line(rows, line)
        if records:
            drawn[line] = [(float(k + 1), float(layer["emd"])) for k, layer in enumerate(records[0]["layers"])]
    if not drawn:
        return {}
    picture = Lines(title=title, x="neuron layer, from the input", y="EMD", lines=drawn, log=True)
    return {f"{plain_name(title)}.svg": svg(picture)}


def firing(rows: Rows, lines: Sequence[str], title: str) -> dict[str, str]:
    """Distribution of the rates in the last neuron layer: rate (x) up to which a share of the neurons lies (y)."""
    drawn: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        records = of_line(rows, line)
        if records:
            layer = records[0]["layers"][-1]
            drawn.setdefault("float", list(zip(layer["reference_quantiles"], map(float, LEVELS), strict=True)))
            drawn[line] = list(zip(layer["quantiles"], map(float, LEVELS), strict=True))
    if not drawn:
        return {}
    picture = Lines(title=title, x="spikes per step", y="neurons up to this rate, %", lines=drawn)
    return {f"{plain_name(title)}.svg": svg(picture)}


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.4f}"


def _rows_of(records: Sequence[Record]) -> str:
    return "1 row" if len(records) == 1 else f"{len(records)} rows"

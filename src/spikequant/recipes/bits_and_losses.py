"""Does a layer's curvature tell what its bits cost?  Layers one by one at few bits, and rank correlations."""

from __future__ import annotations

import copy
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from spikequant.analyse import Traces
from spikequant.analyse.layer_facts import weight_role
from spikequant.nn.reset import reset_states
from spikequant.plan import Plan, literally
from spikequant.quantize import quantize_
from spikequant.training import Batch, Loss, first_output, layerwise

RESAMPLES = 2000
FEWEST = 5
"""Networks that an interval needs: fewer can be drawn anew in too few ways."""
LEVEL = (2.5, 97.5)
SIZE, LEFT, BOTTOM, TOP, RIGHT = 300, 64, 44, 16, 16
MEASURES = {
    "trace": "trace",
    "mean_curvature": "trace / weights",
    "rise": "trace / weights x squared error / 2",
}


@torch.no_grad()
def alone(
    model: nn.Module, traces: Traces, widths: Sequence[int], batches: Sequence[Batch], loss: Loss
) -> list[dict[str, Any]]:
    """Every layer's weights alone at each width, after training: points of accuracy lost, rise of the loss."""
    right, before = accuracy_and_loss(model, batches, loss)
    found = []
    for row in traces.rows:
        fact = None if traces.facts is None else traces.facts.row(row.layer, row.role)
        if row.role != "weight" or fact is None:
            continue
        for bits in widths:
            dressed = copy.deepcopy(model)
            rule = {"match": literally(row.layer), "weight": weight_role(bits).model_dump(exclude_none=True)}
            quantize_(dressed, Plan.from_dict({"rules": [rule]}), batches[0][0], quiet=True)
            share, value = accuracy_and_loss(dressed, batches, loss)
            found.append(
                {
                    "layer": row.layer, "bits": bits, "trace": row.trace, "mean_curvature": row.mean_curvature,
                    "rise": 0.5 * row.trace * fact.squared_error[bits],
                    "lost_points": 100 * (right - share), "loss_rise": value - before,
                }
            )  # fmt: skip
    return found


@torch.no_grad()
def accuracy_and_loss(model: nn.Module, batches: Sequence[Batch], loss: Loss) -> tuple[float, float]:
    """Accuracy, and the loss as a mean over samples."""
    run, was_training = layerwise(model, batches), model.training
    model.eval()
    right, total, count = 0, 0.0, 0
    for x, y in batches:
        reset_states(model)
        scores = first_output(run(x))
        right += int((scores.argmax(-1) == y).sum())
        total, count = total + float(loss(scores, y)) * len(y), count + len(y)
    reset_states(model)
    model.train(was_training)
    return right / count, total / count


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, ties by mean ranks; NaN where one side does not vary.

    >>> spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
    0.5
    """
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / size if size else math.nan


def _ranks(values: Sequence[float]) -> np.ndarray:
    given = np.asarray(values, np.float64)
    return np.array([(given < v).sum() + (given == v).sum() / 2 for v in given])


def correlation(groups: Sequence[Sequence[tuple[float, float]]], seed: int = 0) -> tuple[float, float, float]:
    """Spearman over all points, and its 95 % interval by drawing whole networks anew (percentiles of 2,000 draws).

    Draws without variation are left out; of fewer than five networks the interval is NaN.
    """
    value = _pooled(groups)
    if len(groups) < FEWEST:
        return value, math.nan, math.nan
    generator = np.random.default_rng(seed)
    draws = [_pooled([groups[k] for k in generator.integers(0, len(groups), len(groups))]) for _ in range(RESAMPLES)]
    kept = [d for d in draws if not math.isnan(d)]
    low, high = np.percentile(kept, LEVEL) if kept else (math.nan, math.nan)
    return value, float(low), float(high)


def _pooled(groups: Sequence[Sequence[tuple[float, float]]]) -> float:
    points = [point for group in groups for point in group]
    return spearman([x for x, _ in points], [y for _, y in points])


def section(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The correlations in Markdown, for each width and each measure."""
    networks = {name: row["alone"] for name, row in rows.items() if row.get("alone")}
    if not networks:
        return []
    layers = sum(len({p["layer"] for p in points}) for points in networks.values())
    told = f"95 % interval by drawing whole networks anew ({RESAMPLES:,} draws)"
    if len(networks) < FEWEST:
        told = f"without an interval, which takes {FEWEST} networks or more"
    lines = [
        "", "## Does the trace tell what a layer's bits cost?", "",
        f"Each layer's weights alone at few bits, after training; points of test accuracy lost. {layers} layers of "
        f"{len(networks)} networks. Spearman's correlation over all layers, {told}.", "",
        f"| bits | {' | '.join(MEASURES.values())} |", "| ---: |" + " ---: |" * len(MEASURES),
    ]  # fmt: skip
    for bits in sorted({p["bits"] for points in networks.values() for p in points}):
        cells = []
        for measure in MEASURES:
            groups = [
                [(p[measure], p["lost_points"]) for p in points if p["bits"] == bits] for points in networks.values()
            ]
            value, low, high = correlation([g for g in groups if g])
            cells.append(f"{value:+.2f}" + ("" if math.isnan(low) else f" ({low:+.2f} to {high:+.2f})"))
        lines.append(f"| {bits} | {' | '.join(cells)} |")
    return lines


def drawing(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Trace against points lost at the fewest bits, one dot a layer, a colour a line of the table; SVG."""
    points = [
        (row["line"], name, p)
        for name, row in rows.items()
        for p in row.get("alone", ())
        if p["trace"] > 0 and p["bits"] == min(q["bits"] for q in row["alone"])
    ]
    if not points:
        return ""
    xs = [math.log10(p["trace"]) for *_, p in points]
    ys = [p["lost_points"] for *_, p in points]
    across, up = _axis(xs, LEFT, LEFT + SIZE), _axis(ys, TOP + SIZE, TOP)
    names = list(dict.fromkeys(line for line, _, _ in points))
    width = LEFT + SIZE + RIGHT + 170
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + SIZE + BOTTOM}" font-family="sans-serif" '
        'font-size="11" role="img" aria-label="trace of a layer against points of accuracy lost">',
        f'<rect width="{width}" height="{TOP + SIZE + BOTTOM}" fill="white"/>',
        f'<path d="M{LEFT} {TOP}V{TOP + SIZE}H{LEFT + SIZE}" fill="none" stroke="black"/>',
        f'<text x="{LEFT + SIZE / 2}" y="{TOP + SIZE + 36}" text-anchor="middle">trace of the layer</text>',
        f'<text transform="translate(14 {TOP + SIZE / 2}) rotate(-90)" text-anchor="middle">points lost</text>',
    ]
    for value in sorted({math.floor(min(xs)), *range(math.ceil(min(xs)), math.floor(max(xs)) + 1)}):
        if min(xs) <= value <= max(xs):
            parts.append(f'<text x="{across(value):.0f}" y="{TOP + SIZE + 16}" text-anchor="middle">1e{value}</text>')
    for y in (min(ys), (min(ys) + max(ys)) / 2, max(ys)):
        parts.append(f'<text x="{LEFT - 6}" y="{up(y) + 4:.0f}" text-anchor="end">{y:.1f}</text>')
    for (line, name, p), x, y in zip(points, xs, ys, strict=True):
        told = html.escape(f"{name}, {p['layer']}, {p['bits']} bits: trace {p['trace']:.3g}, {y:.2f} points")
        parts.append(
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="4" fill="{_colour(names.index(line))}" '
            f'fill-opacity="0.7"><title>{told}</title></circle>'
        )
    for k, line in enumerate(names):
        parts.append(
            f'<text x="{LEFT + SIZE + RIGHT}" y="{TOP + 12 + 18 * k}" fill="{_colour(k)}">{html.escape(line)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colour(k: int) -> str:
    return ("#d1495b", "#2e86ab", "#3b7a57", "#8d6a9f", "#b8741a", "#444444")[k % 6]


def _axis(values: Sequence[float], start: float, end: float) -> Any:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * (0.05 + 0.9 * (value - low) / span)

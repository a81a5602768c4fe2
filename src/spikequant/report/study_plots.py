"""Plots of a study: the front (put together by the page's script, for any two figures), importance, all settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikequant.explore import Measured, Study, Trial
from spikequant.report.firing_plots import Figure, escaped, numbers

LONGEST_NAME = 34
MOST_LINES = 400
"""Candidates of which the plot of all settings shows a line: the front, and evenly taken others."""
ABSENT = "\u2013"
STOPPED = "stopped early"
LOOKS = (
    (STOPPED, "@muted", 0.4, 0.25),
    ("misses the target", "@muted", 0.8, 0.5),
    ("keeps the target", "@reference", 0.8, 0.5),
    ("front", "@quantized", 1.8, 0.9),
    ("chosen", "@ink", 3.0, 1.0),
)
"""Lines of the plot of all settings: standing, colour, width, opacity."""


@dataclass(frozen=True)
class Axis:
    """A figure that the plot of the front can show, in the unit of its label."""

    name: str
    label: str
    of: Callable[[Measured], float]
    log: bool = False


AXES = (
    Axis("memory", "memory, KiB", lambda m: (m.flash_bytes + m.ram_bytes) / 1024, log=True),
    Axis("accuracy", "accuracy, %", lambda m: 100 * m.accuracy),
    Axis("flash", "flash, KiB", lambda m: m.flash_bytes / 1024, log=True),
    Axis("ram", "RAM, KiB", lambda m: m.ram_bytes / 1024, log=True),
    Axis("energy", "energy per sample, nJ", lambda m: m.energy_pj / 1000, log=True),
    Axis("emd", "EMD of the firing rates", lambda m: m.emd),
    Axis("dead", "dead neurons, %", lambda m: 100 * m.dead),
)


def groups(study: Study) -> list[dict[str, Any]]:
    """The candidates by their standing, as the script draws them: the important ones last, on top."""
    kept, front, best = set(study.selection.kept), set(study.selection.front), study.selection.best
    standing: dict[str, list[int]] = {STOPPED: [], "misses the target": [], "keeps the target": [], "front": [],
                                      "chosen": []}  # fmt: skip
    for place, trial in enumerate(study.trials):
        if trial.was_refused:
            continue
        name = "chosen" if place == best else "front" if place in front else "keeps the target" if place in kept else (
            STOPPED if trial.measured.stopped_early else "misses the target"
        )  # fmt: skip
        standing[name].append(place)
    looks = {
        STOPPED: ("@muted", "x-thin-open", 6, 0.6),
        "misses the target": ("@muted", "circle-open", 6, 0.6),
        "keeps the target": ("@reference", "circle", 6, 0.55),
        "front": ("@quantized", "circle", 9, 1.0),
        "chosen": ("@quantized", "star", 17, 1.0),
    }
    found = [_group(name, looks[name], [study.trials[k] for k in at], at) for name, at in standing.items() if at]
    real = {"name": "real network", "look": ["@ink", "diamond", 11, 1.0], "trials": [], "texts": ["the real network"]}
    return [*found, {**real, "values": {a.name: numbers([a.of(study.reference)]) for a in AXES}}]


def _group(name: str, look: tuple[str, str, int, float], trials: Sequence[Trial], places: list[int]) -> dict[str, Any]:
    return {
        "name": name,
        "look": list(look),
        "trials": places,
        "texts": [hover(trial) for trial in trials],
        "values": {axis.name: numbers([axis.of(t.measured) for t in trials]) for axis in AXES},
    }


def hover(trial: Trial) -> str:
    """The plan in a few lines; plotly reads tags, so names are escaped."""
    lines = [f"trial {trial.name}"]
    if trial.measured.stopped_early:
        lines[0] += f", stopped after {trial.measured.samples:,} samples"
    lines += [escaped(f"{name} = {shown(value)}", 60) for name, value in trial.candidate.settings.items()]
    return "<br>".join(lines[:24])


def shown(value: Any) -> str:
    """A setting as one reads it."""
    return ABSENT if value is None else value if isinstance(value, str) else json.dumps(value)


def varied(study: Study) -> dict[str, list[str]]:
    """Settings that differ between the candidates of the combined stage, and their values in order."""
    rows = [t.candidate.settings for t in _combined(study)]
    names = sorted({name for row in rows for name in row})
    found = {name: _ordered({shown(row.get(name)) for row in rows}) for name in names}
    return {name: values for name, values in found.items() if len(values) > 1}


def _ordered(values: set[str]) -> list[str]:
    def key(text: str) -> tuple[int, float, str]:
        try:
            return 0, float(text), text
        except ValueError:
            return 1, 0.0, text

    return sorted(values, key=key)


def _combined(study: Study) -> list[Trial]:
    return [t for t in study.trials if t.stage != "alone" and not t.was_refused]


def importances(study: Study) -> list[tuple[str, float, float]]:
    """``(setting, share for accuracy, share for memory)``, the largest first.

    Share of the variance of the figure between the candidates that the setting explains by itself,
    ``sum_g n_g (mean_g - mean)^2 / sum_i (y_i - mean)^2`` (correlation ratio, one-way analysis of variance).  For
    accuracy, of the candidates that saw all samples: what others scored on fewer cannot be compared.
    """
    trials = _combined(study)
    if len(trials) < 2:
        return []
    measured = [t for t in trials if not t.measured.stopped_early]
    found = []
    for name in varied(study):
        shares = [
            _explained(
                np.array([shown(t.candidate.settings.get(name)) for t in some]),
                np.array([axis.of(t.measured) for t in some]),
            )
            for axis, some in ((AXES[1], measured), (AXES[0], trials))
        ]
        found.append((name, shares[0], shares[1]))
    return sorted(found, key=lambda row: (-row[1], row[0]))


def _explained(groups_of: np.ndarray, y: np.ndarray) -> float:
    whole = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
    if whole == 0.0:
        return 0.0
    parts = [y[groups_of == g] for g in np.unique(groups_of)]
    return float(sum(len(p) * (p.mean() - y.mean()) ** 2 for p in parts) / whole)


def importance(study: Study) -> Figure | None:
    """Two bars per setting; None where nothing varies."""
    rows = importances(study)
    if not rows:
        return None
    data = [
        {"type": "bar", "orientation": "h", "name": name, "x": numbers([row[k] for row in rows]),
         "y": list(range(len(rows))), "marker": {"color": colour}, "hovertemplate": "%{x:.2f}<extra></extra>"}
        for name, k, colour in (("accuracy", 1, "@quantized"), ("memory", 2, "@reference"))
    ]  # fmt: skip
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": "share of the variance that the setting explains alone"}, "range": [0, 1]},
            "yaxis": {"tickvals": list(range(len(rows))), "automargin": True, "showgrid": False,
                      "ticktext": [escaped(row[0], LONGEST_NAME) for row in rows], "range": [len(rows) - 0.4, -0.6]},
            "height": 40 * len(rows) + 110, "barmode": "group", "bargap": 0.35,
        },
    }  # fmt: skip


def parallel_words(study: Study) -> str:
    """How many candidates the plot of all settings shows."""
    whole, most = len(_combined(study)), MOST_LINES + len(study.selection.front)
    return "" if whole <= MOST_LINES else f"The front and {MOST_LINES} of the others, {min(most, whole)} of {whole:,}."


def parallel(study: Study) -> Figure | None:
    """A line per candidate through its settings, memory and accuracy; each axis from 0 to 1 in its own units.

    The line of a candidate that was given up ends at its memory.
    """
    names = varied(study)
    chosen = _lines(study)
    if not names or not chosen:
        return None
    memory, accuracy = (_scale(axis, some) for axis, some in _figures([t for _, t in chosen]))
    data = []
    for name, colour, width, opacity in LOOKS:
        x: list[float | None] = []
        y: list[float | None] = []
        for trial in (t for standing, t in chosen if standing == name):
            end = None if name == STOPPED else accuracy(trial.measured)
            x += [*range(len(names) + 2), None]
            y += [_place(values, shown(trial.candidate.settings.get(n))) for n, values in names.items()]
            y += [memory(trial.measured), end, None]
        if x:
            data.append({"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "opacity": opacity,
                         "line": {"color": colour, "width": width}, "hoverinfo": "skip"})  # fmt: skip
    return {
        "data": data,
        "layout": {
            "xaxis": {"tickvals": list(range(len(names) + 2)), "range": [-0.3, len(names) + 1.3], "tickangle": -35,
                      "ticktext": [*(escaped(n, 26) for n in names), "memory", "accuracy"]},
            "yaxis": {"visible": False, "range": [-0.06, 1.06]},
            "annotations": _labels(names, [t for _, t in chosen]),
            "height": 460,
        },
    }  # fmt: skip


def _lines(study: Study) -> list[tuple[str, Trial]]:
    front, kept, best = set(study.selection.front), set(study.selection.kept), study.selection.best
    all_ = [(k, t) for k, t in enumerate(study.trials) if t.stage != "alone" and not t.was_refused]
    others = [item for item in all_ if item[0] not in front]
    step = max(1, math.ceil(len(others) / MOST_LINES))
    taken = [*others[::step], *(item for item in all_ if item[0] in front)]

    def standing(k: int, trial: Trial) -> str:
        missed = STOPPED if trial.measured.stopped_early else "misses the target"
        return "chosen" if k == best else "front" if k in front else "keeps the target" if k in kept else missed

    return [(standing(k, t), t) for k, t in taken]


def _figures(trials: Sequence[Trial]) -> list[tuple[Axis, list[Trial]]]:
    """Memory with all candidates, accuracy with those that saw all samples."""
    return [(AXES[0], list(trials)), (AXES[1], [t for t in trials if not t.measured.stopped_early])]


def _place(values: list[str], value: str) -> float:
    return round(values.index(value) / (len(values) - 1), 4)


def _scale(axis: Axis, trials: Sequence[Trial]) -> Callable[[Measured], float]:
    low, high = (f((axis.of(t.measured) for t in trials), default=0.0) for f in (min, max))
    span = (high - low) or 1.0
    return lambda m: round((axis.of(m) - low) / span, 4)


def _labels(names: dict[str, list[str]], trials: Sequence[Trial]) -> list[Figure]:
    """The ends of every axis, where its values stand."""
    found = []
    for k, values in enumerate(names.values()):
        for text in (values[0], values[-1]) if len(values) > 6 else values:
            found.append(_label(k, _place(values, text), escaped(text, 14)))
    for k, (axis, some) in enumerate(_figures(trials), start=len(names)):
        ends = [axis.of(t.measured) for t in some]
        if not ends:
            continue
        found += [_label(k, 0.0, f"{min(ends):.3g}"), _label(k, 1.0, f"{max(ends):.3g}")]
    return found


def _label(x: int, y: float, text: str) -> Figure:
    return {"x": x, "y": y, "text": text, "showarrow": False, "xanchor": "left", "xshift": 4, "bgcolor": "@paper",
            "opacity": 0.9, "font": {"size": 11, "color": "@ink"}}  # fmt: skip

"""Plots of one layer's firing rates, as plain plotly figures: distribution, ECDF, neuron by neuron.

A colour is a role (``@reference``); the page's script puts in the colour of the theme.
Every text that comes from a name is escaped here, because plotly reads tags in texts.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import numpy.typing as npt

Figure = dict[str, Any]
Rates = npt.NDArray[np.floating[Any]]

BINS_LEAST, BINS_MOST = 10, 40
ECDF_POINTS = 400
SCATTER_BUDGET = 24_000  # points of all layers of one page section together
SCATTER_LEAST, SCATTER_MOST = 300, 3000


def escaped(text: str, longest: int = 0) -> str:
    """`text` for a plotly label, shortened in the middle if it is longer than `longest`.

    >>> escaped("<b>fc</b>"), escaped("features.stage3.block2.lif", longest=12)
    ('&lt;b&gt;fc&lt;/b&gt;', 'featu…k2.lif')
    """
    if longest and len(text) > longest:
        front = (longest - 1) // 2
        text = f"{text[:front]}\u2026{text[len(text) - (longest - 1 - front) :]}"
    return html.escape(text, quote=False)


def numbers(values: npt.ArrayLike) -> list[float]:
    """JSON numbers with six significant figures: enough for a screen, and a small page."""
    return [float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64).ravel()]


def histogram(reference: Rates, quantized: Rates) -> Figure:
    """Share of neurons per bin of the firing rate; reference as bars, quantized as an outline."""
    top = _top(reference, quantized)
    edges = np.linspace(0.0, top, max(BINS_LEAST, min(BINS_MOST, len(reference) // 8)) + 1)
    before, after = (100 * np.histogram(r, edges)[0] / len(r) for r in (reference, quantized))
    hover = "rate %{x:.3f}: %{y:.1f} %"
    return {
        "data": [
            {"type": "bar", "name": "reference", "x": numbers((edges[:-1] + edges[1:]) / 2), "y": numbers(before),
             "width": float(f"{edges[1]:.6g}"), "marker": {"color": "@reference", "opacity": 0.45},
             "hovertemplate": hover},
            {"type": "scatter", "mode": "lines", "name": "quantized", "x": numbers([0.0, *edges, top]),
             "y": numbers([0.0, *after, after[-1], 0.0]), "line": {"color": "@quantized", "width": 2, "shape": "hv"},
             "hovertemplate": hover},
        ],
        "layout": {"xaxis": {"title": {"text": "spikes per step"}, "range": [0, top]},
                   "yaxis": {"title": {"text": "neurons, %"}, "rangemode": "tozero"}, "bargap": 0},
    }  # fmt: skip


def ecdf(reference: Rates, quantized: Rates) -> Figure:
    """Cumulative shares; the area between the two curves is the EMD."""
    top = _top(reference, quantized)
    grid = np.unique(np.concatenate([[0.0, top], reference, quantized]))
    if len(grid) > ECDF_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, ECDF_POINTS).astype(int)]
    before, after = (100 * np.searchsorted(np.sort(r), grid, side="right") / len(r) for r in (reference, quantized))
    hover = "%{y:.1f} % of the neurons up to %{x:.3f}"
    return {
        "data": [
            {"type": "scatter", "mode": "lines", "name": "reference", "x": numbers(grid), "y": numbers(before),
             "line": {"color": "@reference", "width": 2, "shape": "hv", "dash": "dot"}, "hovertemplate": hover},
            {"type": "scatter", "mode": "lines", "name": "quantized", "x": numbers(grid), "y": numbers(after),
             "line": {"color": "@quantized", "width": 2, "shape": "hv"}, "fill": "tonexty", "fillcolor": "@shade",
             "hovertemplate": hover},
        ],
        "layout": {"xaxis": {"title": {"text": "spikes per step"}, "range": [0, top]},
                   "yaxis": {"title": {"text": "neurons up to this rate, %"}, "range": [0, 102]}},
    }  # fmt: skip


def scatter_limit(layers: int) -> int:
    """Most points of one layer, so that a page of many layers stays small.

    >>> scatter_limit(1), scatter_limit(60)
    (3000, 400)
    """
    return max(SCATTER_LEAST, min(SCATTER_MOST, SCATTER_BUDGET // max(layers, 1)))


def chosen_neurons(reference: Rates, quantized: Rates, limit: int) -> npt.NDArray[np.int64]:
    """All neurons, or `limit` of them: the half that moved most, and evenly spaced ones of the others."""
    if len(reference) <= limit:
        return np.arange(len(reference))
    order = np.argsort(-np.abs(np.asarray(quantized, np.float64) - reference), kind="stable")
    moved, others = order[: limit // 2], np.sort(order[limit // 2 :])
    spaced = others[np.linspace(0, len(others) - 1, limit - len(moved)).astype(int)]
    return np.sort(np.concatenate([moved, spaced]))


def rate_against_rate(reference: Rates, quantized: Rates, limit: int) -> Figure:
    """One point per neuron; on the diagonal nothing changed; a cross fell silent."""
    shown = chosen_neurons(reference, quantized, limit)
    r, q = reference[shown], quantized[shown]
    silenced = (q == 0) & (r > 0)
    cross = {"color": "@alarm", "size": 8, "symbol": "x-thin", "line": {"color": "@alarm", "width": 2}}
    top = _top(reference, quantized)
    hover = "neuron %{customdata}: %{x:.3f} before, %{y:.3f} after"
    points = [
        {"type": "scatter", "mode": "markers", "name": name, "x": numbers(r[where]), "y": numbers(q[where]),
         "customdata": shown[where].tolist(), "marker": marker, "hovertemplate": hover, "cliponaxis": False}
        for name, where, marker in (
            ("neuron", ~silenced, {"color": "@quantized", "size": 5, "opacity": 0.5}),
            ("fell silent", silenced, cross),
        )
        if where.any()
    ]  # fmt: skip
    diagonal = {"type": "scatter", "mode": "lines", "name": "no change", "x": [0, top], "y": [0, top],
                "line": {"color": "@muted", "width": 1, "dash": "dot"}, "hoverinfo": "skip"}  # fmt: skip
    return {
        "data": [diagonal, *points],
        "layout": {"xaxis": {"title": {"text": "rate, reference"}, "range": [0, top]},
                   "yaxis": {"title": {"text": "rate, quantized"}, "range": [0, top]}},
    }  # fmt: skip


def quantiles(reference: Rates, quantized: Rates) -> list[list[float]]:
    """Rows ``[per cent of neurons, rate before, rate after]``: the table behind the distributions."""
    levels = [0, 5, 25, 50, 75, 95, 100]
    return [
        [level, *numbers([before, after])]
        for level, before, after in zip(
            levels, np.percentile(reference, levels), np.percentile(quantized, levels), strict=True
        )
    ]


def _top(reference: Rates, quantized: Rates) -> float:
    top = float(max(reference.max(initial=0.0), quantized.max(initial=0.0)))
    return float(f"{1.05 * top:.6g}") if top > 0 else 1.0

"""Spike rasters of one sample: both networks side by side, what one has and the other lacks marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.analyse import Raster
from spikequant.report.firing_plots import Figure
from spikequant.report.numerals import count

ROWS, STEPS = 64, 120
LEAD = 20  # steps drawn before a first difference that is late
SHAPES = {"reference": "circle", "quantized": "diamond"}
SPIKE_BUDGET = 60_000  # marks of all layers of one page section together
SPIKES_LEAST, SPIKES_MOST = 800, 6000


@dataclass(frozen=True, kw_only=True)
class RasterPair:
    """The two figures of a layer and what they show, in words."""

    reference: Figure
    quantized: Figure
    words: str


def spike_limit(layers: int) -> int:
    """Most spikes drawn per raster, so that a page of many layers stays small.

    >>> spike_limit(1), spike_limit(60)
    (6000, 1000)
    """
    return max(SPIKES_LEAST, min(SPIKES_MOST, SPIKE_BUDGET // max(layers, 1)))


def raster_pair(raster: Raster, limit: int) -> RasterPair:
    """Both rasters: at most `ROWS` evenly spaced neurons, and `STEPS` steps with at most `limit` spikes each."""
    rows = np.linspace(0, len(raster.neurons) - 1, min(ROWS, len(raster.neurons))).astype(int)
    r, q = np.asarray(raster.reference)[:, rows], np.asarray(raster.quantized)[:, rows]
    neurons, steps = raster.neurons[rows], _window(r, q, limit)
    return RasterPair(
        reference=_figure(r[steps], q[steps], neurons, "reference", steps.start),
        quantized=_figure(q[steps], r[steps], neurons, "quantized", steps.start),
        words=_words(raster, r, q, steps),
    )


def _window(r: npt.NDArray[Any], q: npt.NDArray[Any], limit: int) -> slice:
    """From the start, or else from shortly before the first difference."""
    differs = np.nonzero((r != q).any(1))[0]
    start = int(differs[0]) - LEAD if differs.size and differs[0] >= STEPS - LEAD else 0
    spikes = np.maximum((r != 0).sum(1), (q != 0).sum(1))[start : start + STEPS].cumsum()
    return slice(start, start + max(1, int(np.searchsorted(spikes, limit, side="right"))))


def _figure(own: npt.NDArray[Any], other: npt.NDArray[Any], neurons: npt.NDArray[Any], side: str, start: int) -> Figure:
    """Filled marks: this network has the spike.  Open marks, in the other's shape and colour: it lacks the spike."""
    steps, shown = own.shape
    opposite = "quantized" if side == "reference" else "reference"
    dash = {"symbol": "line-ew-open", "size": max(4, min(16, 160 // steps))}  # fills a step, leaves neurons apart
    tick = {"symbol": "line-ns-open", "size": 6}
    kinds = (
        ("in both", (own != 0) & (own == other),
         {"color": "@ink", "line": {"width": 2}, **(dash if 2 * steps < shown else tick)}),
        ("another count", (own != 0) & (other != 0) & (own != other), _mark(side, "square", steps)),
        (f"only in {side}", (own != 0) & (other == 0), _mark(side, SHAPES[side], steps)),
        (f"missing, is in {opposite}", (own == 0) & (other != 0),
         _mark(opposite, f"{SHAPES[opposite]}-open", steps)),
    )  # fmt: skip
    marks = [
        {"type": "scatter", "mode": "markers", "name": name, "x": (at[0] + start).tolist(), "y": at[1].tolist(),
         "customdata": neurons[at[1]].tolist(), "marker": marker, "cliponaxis": False,
         "hovertemplate": "step %{x}, neuron %{customdata}"}
        for name, where, marker in kinds
        if (at := np.nonzero(where))[0].size
    ]  # fmt: skip
    ticks = sorted({int(i) for i in np.linspace(0, shown - 1, min(shown, 6))})
    return {
        "data": marks or [_nothing(start, steps, shown)],
        "layout": {
            "xaxis": {"title": {"text": "step"}, "range": [start - 0.6, start + steps - 0.4], "zeroline": False},
            "yaxis": {"title": {"text": "neuron"}, "range": [shown - 0.4, -0.6], "zeroline": False,
                      "tickvals": ticks, "ticktext": [str(int(neurons[i])) for i in ticks]},
            "height": 110 + 6 * max(shown, 16),
        },
    }  # fmt: skip


def _mark(side: str, symbol: str, steps: int) -> dict[str, Any]:
    return {
        "color": f"@{side}",
        "symbol": symbol,
        "size": 7 if steps <= 40 else 5,
        "line": {"width": 1.5, "color": f"@{side}"},
    }


def _nothing(start: int, steps: int, shown: int) -> dict[str, Any]:
    text = {"text": ["no spike"], "textfont": {"color": "@muted"}, "hoverinfo": "skip", "name": "no spike"}
    return {"type": "scatter", "mode": "text", "x": [start + (steps - 1) / 2], "y": [(shown - 1) / 2], **text}


def _words(raster: Raster, r: npt.NDArray[Any], q: npt.NDArray[Any], drawn: slice) -> str:
    steps, shown = r.shape
    same = int(((r == q) & (r != 0)).sum())
    only_r, only_q = int(((r != 0) & (q == 0)).sum()), int(((q != 0) & (r == 0)).sum())
    counted = int(((r != 0) & (q != 0) & (r != q)).sum())
    which = f"all {count(shown)}" if shown == raster.total else f"{count(shown)} of {count(raster.total)}"
    text = f"Sample {raster.sample}, {which} neurons, {count(steps)} steps. Spikes: {count(same)} in both networks, "
    text += f"{count(only_r)} only in the reference, {count(only_q)} only in the quantized network"
    text += f", {count(counted)} in both but not as many" if counted else ""
    differs = np.nonzero((r != q).any(1))[0]
    text += f". They first differ at step {int(differs[0])}." if differs.size else ". They do not differ."
    whole = drawn.start == 0 and drawn.stop >= steps
    return text if whole else f"{text} Drawn: steps {count(drawn.start)} to {count(drawn.stop - 1)}."

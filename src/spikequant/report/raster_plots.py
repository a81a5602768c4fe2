"""Spike rasters of one sample: both networks side by side, what one has and the other lacks marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.analyse import Raster
from spikequant.report.firing_plots import Figure
from spikequant.report.numerals import count

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
    """Both rasters over the first steps that hold at most `limit` spikes each."""
    r, q = np.asarray(raster.reference), np.asarray(raster.quantized)
    steps = _steps_within(r, q, limit)
    return RasterPair(
        reference=_figure(r[:steps], q[:steps], raster.neurons, "reference"),
        quantized=_figure(q[:steps], r[:steps], raster.neurons, "quantized"),
        words=_words(raster, r, q, steps),
    )


def _steps_within(r: npt.NDArray[Any], q: npt.NDArray[Any], limit: int) -> int:
    spikes = np.maximum((r != 0).sum(1), (q != 0).sum(1)).cumsum()
    return max(1, int(np.searchsorted(spikes, limit, side="right")))


def _figure(own: npt.NDArray[Any], other: npt.NDArray[Any], neurons: Any, side: str) -> Figure:
    steps, shown = own.shape
    tick = {"color": "@ink", "symbol": "line-ns-open", "size": 7, "line": {"width": 2}}
    kinds = (
        ("in both", (own != 0) & (own == other), tick),
        ("another count", (own != 0) & (other != 0) & (own != other),
         {"color": f"@{side}", "symbol": "square-open", "size": 7}),
        (f"only in {side}", (own != 0) & (other == 0),
         {"color": f"@{side}", "symbol": "diamond" if side == "quantized" else "circle", "size": 7}),
        ("missing here", (own == 0) & (other != 0), {"color": "@missing", "symbol": "circle-open", "size": 7}),
    )  # fmt: skip
    ids = np.asarray(neurons)
    marks = [
        {"type": "scatter", "mode": "markers", "name": name, "x": at[0].tolist(), "y": at[1].tolist(),
         "customdata": ids[at[1]].tolist(), "marker": marker, "cliponaxis": False,
         "hovertemplate": "step %{x}, neuron %{customdata}"}
        for name, where, marker in kinds
        if (at := np.nonzero(where))[0].size
    ]  # fmt: skip
    ticks = sorted({int(i) for i in np.linspace(0, shown - 1, min(shown, 6))})
    return {
        "data": marks or [_nothing(steps, shown)],
        "layout": {
            "xaxis": {"title": {"text": "step"}, "range": [-0.6, steps - 0.4], "zeroline": False},
            "yaxis": {"title": {"text": "neuron"}, "range": [shown - 0.4, -0.6], "zeroline": False,
                      "tickvals": ticks, "ticktext": [str(int(ids[i])) for i in ticks]},
            "height": int(min(460, 150 + 6 * shown)),
        },
    }  # fmt: skip


def _nothing(steps: int, shown: int) -> dict[str, Any]:
    return {"type": "scatter", "mode": "text", "x": [(steps - 1) / 2], "y": [(shown - 1) / 2], "name": "no spike",
            "text": ["no spike"], "textfont": {"color": "@muted"}, "hoverinfo": "skip"}  # fmt: skip


def _words(raster: Raster, r: npt.NDArray[Any], q: npt.NDArray[Any], drawn: int) -> str:
    steps, shown = r.shape
    same = int(((r == q) & (r != 0)).sum())
    only_r, only_q = int(((r != 0) & (q == 0)).sum()), int(((q != 0) & (r == 0)).sum())
    counted = int(((r != 0) & (q != 0) & (r != q)).sum())
    which = f"all {count(shown)}" if shown == raster.total else f"{count(shown)} of {count(raster.total)}"
    text = f"Sample {raster.sample}, {which} neurons, {count(steps)} steps: {count(same)} spikes in both networks, "
    text += f"{count(only_r)} only in the reference, {count(only_q)} only in the quantized network"
    text += f", {count(counted)} times another number of spikes in one step" if counted else ""
    differs = np.nonzero((r != q).any(1))[0]
    text += f". They first differ at step {int(differs[0])}." if differs.size else ". They do not differ."
    return text if drawn == steps else f"{text} Drawn: the first {count(drawn)} steps."

"""Pictures of a learned network: receptive fields and the confusion matrix, as plotly figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError, Unsupported
from spikequant.learn.network import Network


def fields(network: Network, *, shape: tuple[int, int] | None = None, most: int = 400) -> npt.NDArray[np.float64]:
    """The weights of the first `most` neurons as one picture of square tiles.

    Args:
        network: what learned.
        shape: height and width of an image; None for a square one.
        most: neurons shown.

    Raises:
        DataError: `shape` does not hold the inputs.
    """
    side = math.isqrt(network.config.inputs)
    height, width = shape or (side, side)
    if height * width != network.config.inputs:
        raise DataError(f"fields: {height} x {width} is not {network.config.inputs} inputs; pass shape=(height, width)")
    n = min(most, network.config.neurons)
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for k, weights in enumerate(network.real_weights().T[:n]):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        sheet[top : top + height, left : left + width] = weights.reshape(height, width)
    return sheet


def field_figure(network: Network, *, shape: tuple[int, int] | None = None, most: int = 400) -> Any:
    """`fields` as a plotly figure.

    Raises:
        Unsupported: plotly is not installed.
    """
    figure = _plotly().Figure(
        _plotly().Heatmap(
            z=fields(network, shape=shape, most=most)[::-1], colorscale="Viridis", colorbar={"title": "weight"}
        )
    )
    figure.update_layout(title=f"receptive fields after {network.seen:,} images", width=760, height=760)
    figure.update_xaxes(visible=False)
    return figure.update_yaxes(visible=False, scaleanchor="x")


def confusion_figure(table: npt.NDArray[np.int64], *, names: tuple[str, ...] | None = None) -> Any:
    """The result of `confusion` as a plotly figure.

    Raises:
        Unsupported: plotly is not installed.
    """
    names = names or tuple(str(c) for c in range(len(table)))
    figure = _plotly().Figure(
        _plotly().Heatmap(
            z=table, x=names, y=names, text=table, texttemplate="%{text}", colorscale="Blues", showscale=False
        )
    )
    share = np.trace(table) / max(1, table.sum())
    figure.update_layout(
        title=f"accuracy {share:.1%} of {table.sum():,}", xaxis_title="voted", yaxis_title="true class"
    )
    return figure.update_yaxes(autorange="reversed")


def _plotly() -> Any:
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise Unsupported("plots need plotly, which is not installed: pip install 'spikequant[report]'") from error
    return plotly.graph_objects

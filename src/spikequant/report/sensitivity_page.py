"""The page of sensitivities: several methods side by side for every layer, with errors and ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikequant.analyse import Sensitivities, Standing, side_by_side
from spikequant.law.atomic import write_text
from spikequant.report.assets import filled
from spikequant.report.firing_plots import Figure, escaped, numbers
from spikequant.report.provenance import Provenance
from spikequant.report.tables import Cell, Column, Table

COLOURS = ("@quantized", "@reference", "@ink", "@muted")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x")
LONGEST_NAME = 34


def write_sensitivities(
    found: Sequence[Sensitivities],
    path: str | os.PathLike[str],
    *,
    weight_bits: int = 4,
    membrane_bits: int = 8,
    title: str | None = None,
    provenance: Provenance | None = None,
) -> Path:
    """Write one self-contained HTML page that puts methods side by side; the same input gives the same bytes.

    Raises:
        Unsupported: plotly or jinja2 is not installed.
        DataError: nothing to compare, or a method twice.
        PlanError: a width that a method does not know.
        ArtifactError: the folder is missing or cannot be written.
    """
    rows = side_by_side(found, weight_bits=weight_bits, membrane_bits=membrane_bits)
    roles = list(dict.fromkeys(row.role for row in rows))
    of = {role: [row for row in rows if row.role == role] for role in roles}
    text = filled(
        "sensitivity.html.j2",
        "sensitivity.js",
        title=title or "Which layer needs which bits",
        lead=lead(rows),
        roles=[(role, f"{role.capitalize()}s at {of[role][0].bits} bits") for role in roles],
        tables={role: standing_table(of[role]) for role in roles},
        notes=[f"{one.name}: {word}" for one in found for word in one.words],
        provenance=provenance,
        data={"plots": {role: standing_plot(of[role]) for role in roles}},
    )
    write_text(path, text)
    return Path(path)


def lead(rows: Sequence[Standing]) -> str:
    """Who is first, in one sentence for each role."""
    parts = []
    for role in dict.fromkeys(row.role for row in rows):
        first = {row.method: row.layer for row in rows if row.role == role and row.rank == 1}
        if len(set(first.values())) == 1:
            methods = "all methods" if len(first) > 1 else next(iter(first))
            parts.append(f"The most sensitive {role} is that of {next(iter(first.values()))}, by {methods}.")
        else:
            told = ", ".join(f"{layer} by {method}" for method, layer in first.items())
            parts.append(f"The methods differ on the most sensitive {role}: {told}.")
    return " ".join(parts)


def standing_table(rows: Sequence[Standing]) -> Table:
    """One row a layer, two columns a method: score with its error, rank."""
    methods = list(dict.fromkeys(row.method for row in rows))
    columns = [Column(label="Layer", numeric=False)]
    for method in methods:
        columns += [Column(label="expected rise", group=method), Column(label="rank", group=method)]
    by = {(row.layer, row.method): row for row in rows}
    body = []
    for place, layer in enumerate(dict.fromkeys(row.layer for row in rows)):
        cells = [Cell(text=layer, value=float(place))]
        for method in methods:
            row = by.get((layer, method))
            if row is None:
                cells += [Cell(text="not measured"), Cell(text="not measured")]
            else:
                cells += [
                    Cell(text=f"{row.score:.3g} ± {row.standard_error:.1g}", value=row.score),
                    Cell(text=str(row.rank), value=float(row.rank)),
                ]
        body.append(tuple(cells))
    return Table(caption="Scores and ranks", columns=tuple(columns), rows=tuple(body), sorts=True)


def standing_plot(rows: Sequence[Standing]) -> Figure:
    """A point with an error bar for each layer and method."""
    layers = list(dict.fromkeys(row.layer for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    data: list[dict[str, Any]] = []
    for k, method in enumerate(methods):
        mine = [row for row in rows if row.method == method]
        shift = 0.6 * ((k + 0.5) / len(methods) - 0.5)
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": method,
                "x": numbers([row.share for row in mine]),
                "y": [layers.index(row.layer) + shift for row in mine],
                "error_x": {"type": "data", "array": numbers([row.share_error for row in mine]), "thickness": 1.2,
                            "color": COLOURS[k % len(COLOURS)]},
                "marker": {"color": COLOURS[k % len(COLOURS)], "symbol": SYMBOLS[k % len(SYMBOLS)], "size": 9},
                "text": [f"{escaped(row.layer, LONGEST_NAME)}: {row.score:.4g}, rank {row.rank}" for row in mine],
                "hovertemplate": "%{text}<extra>" + method + "</extra>",
            }
        )  # fmt: skip
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": "expected rise, share of the method's largest"}, "zeroline": True},
            "yaxis": {"tickvals": list(range(len(layers))), "automargin": True, "showgrid": False,
                      "ticktext": [escaped(layer, LONGEST_NAME) for layer in layers],
                      "range": [len(layers) - 0.4, -0.6]},
            "height": 60 * len(layers) + 130,
        },
    }  # fmt: skip

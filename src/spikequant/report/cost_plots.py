"""Plots over the whole network: EMD by layer, memory by role, energy, bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from spikequant.analyse import Comparison, Side
from spikequant.measure import FLASH_ROLES, RAM_ROLES, MemoryRow, memory_by_role
from spikequant.report.firing_plots import Figure, escaped, numbers
from spikequant.report.numerals import BYTES, JOULES, energy, size

LONGEST_NAME = 24
FLOORS = (("floor, two halves", "floor", "@ink", 2), ("floor, two seeds", "seed_floor", "@reference", 3))
STRONG = {"weight": "@quantized", "membrane": "@reference"}
SYMBOLS = {"weight": "circle", "membrane": "square", "threshold": "triangle-up-open", "bias": "diamond-open",
           "leak": "triangle-down-open", "scale": "x-open", "reset": "triangle-left-open", "current": "square-open",
           "input": "star-open", "readout": "hexagon-open", "spike_buffer": "line-ns-open"}  # fmt: skip
ENERGY_LINES = (
    ("fp_ops", "float operations"),
    ("integer_ops", "integer operations"),
    ("integer_ops_and_traffic", "integers and traffic"),
)


def emd_by_layer(comparison: Comparison) -> Figure:
    """A bar per layer, the floors as marks on it."""
    layers = comparison.layers
    y = list(range(len(layers)))
    bars = {"type": "bar", "orientation": "h", "name": "EMD", "x": numbers([layer.emd for layer in layers]), "y": y,
            "width": 0.5, "marker": {"color": "@quantized"}, "hovertemplate": "EMD %{x:.4f}"}  # fmt: skip
    marks = [
        {"type": "scatter", "mode": "markers", "name": name, "x": numbers([v for v, _ in at]), "y": [i for _, i in at],
         "marker": {"color": colour, "symbol": "line-ns-open", "size": 16, "line": {"width": width}},
         "hovertemplate": name + " %{x:.4f}"}
        for name, field, colour, width in FLOORS
        if (at := _measured([getattr(layer, field) for layer in layers]))
    ]  # fmt: skip
    return _rows([bars, *marks], [layer.layer for layer in layers], "spikes per step")


def memory_of(reference: Side, quantized: Side, kind: str) -> Figure:
    """Bytes by role before and after; `kind` is ``flash`` or ``ram``."""
    roles = FLASH_ROLES if kind == "flash" else RAM_ROLES
    before, after = (memory_by_role(side.memory) for side in (reference, quantized))
    shown = [role for role in roles if role in before or role in after]
    data = [
        _pair(name, [bits.get(role, 0) / 8 for role in shown], [size(bits.get(role, 0) / 8) for role in shown])
        for name, bits in (("reference", before), ("quantized", after))
    ]
    return _rows(data, [role.replace("_", " ") for role in shown], _in_units(data, 1024, BYTES), tight=True)


def energy_of(reference: Side, quantized: Side) -> Figure:
    """The three lines of energy per sample before and after."""
    data = [
        _pair(name, values, [energy(value) for value in values])
        for name, side in (("reference", reference), ("quantized", quantized))
        for values in [[getattr(side.energy, field) for field, _ in ENERGY_LINES]]
    ]
    return _rows(
        data,
        [words for _, words in ENERGY_LINES],
        f"{_in_units(data, 1000, JOULES)} per sample",
        tight=True,
        longest=40,
    )


def bits_of(quantized: Side) -> Figure:
    """Bits of every stored number, by module and role."""
    modules = list(dict.fromkeys(row.layer for row in quantized.memory))
    data = [
        {"type": "scatter", "mode": "markers", "name": role.replace("_", " "), "x": [row.bits for row in rows],
         "y": [modules.index(row.layer) for row in rows], "cliponaxis": False,
         "marker": {"symbol": SYMBOLS.get(role, "asterisk-open"), "size": 10 if role in STRONG else 8,
                    "color": STRONG.get(role, "@muted")},
         "hovertemplate": "%{x} bits"}
        for role, rows in _by_role(quantized.memory).items()
    ]  # fmt: skip
    figure = _rows(data, modules, "bits per number")
    figure["layout"]["xaxis"] |= {"type": "log", "tickvals": [1, 2, 4, 8, 16, 32], "range": [-0.08, math.log10(40)]}
    return figure


def _by_role(rows: Iterable[MemoryRow]) -> dict[str, list[MemoryRow]]:
    found: dict[str, list[MemoryRow]] = {}
    for row in rows:
        found.setdefault(row.role, []).append(row)
    return {role: found[role] for role in FLASH_ROLES + RAM_ROLES if role in found}


def _measured(values: Sequence[float | None]) -> list[tuple[float, int]]:
    return [(float(v), i) for i, v in enumerate(values) if v is not None and not math.isnan(v)]


def _in_units(data: list[Figure], step: int, units: Sequence[str]) -> str:
    """Divide the bars so that the longest has few digits; the name of the unit."""
    top, exponent = max((value for bars in data for value in bars["x"]), default=0.0), 0
    while top >= step and exponent < len(units) - 1:
        top, exponent = top / step, exponent + 1
    for bars in data:
        bars["x"] = numbers([value / step**exponent for value in bars["x"]])
    return units[exponent]


def _pair(name: str, values: Sequence[float], texts: Sequence[str]) -> Figure:
    return {"type": "bar", "orientation": "h", "name": name, "x": numbers(values), "y": list(range(len(values))),
            "text": list(texts), "textposition": "outside", "cliponaxis": False, "textfont": {"color": "@ink"},
            "marker": {"color": f"@{name}"}, "hovertemplate": "%{text}"}  # fmt: skip


def _rows(
    data: list[Figure], names: Sequence[str], unit: str, *, tight: bool = False, longest: int = LONGEST_NAME
) -> Figure:
    """Rows from top to bottom, one per name; numbers as positions, so that two short names may be equal."""
    height = (44 if tight else 22) * len(names) + 110
    top = max((value for trace in data for value in trace["x"]), default=0.0)
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": unit}, "range": [0, (1.3 if tight else 1.06) * top or 1.0]},
            "yaxis": {"tickvals": list(range(len(names))), "ticktext": [escaped(name, longest) for name in names],
                      "range": [len(names) - 0.4, -0.6], "automargin": True, "showgrid": False, "zeroline": False},
            "height": height, "barmode": "group", "bargap": 0.35,
        },
    }  # fmt: skip

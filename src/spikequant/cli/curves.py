"""``curves.svg``: loss and accuracy of every epoch, a picture that any browser shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 260, 60, 34, 36
PANELS = (
    ("loss", (("loss", "#1f6fb4"),)),
    ("accuracy", (("train_accuracy", "#1f6fb4"), ("validation_accuracy", "#d1641f"))),
)
NAMES = {"loss": "training loss", "train_accuracy": "training", "validation_accuracy": "validation"}


def curves_svg(records: Sequence[Mapping[str, Any]]) -> str:
    """The picture of the lines of ``metrics.jsonl``; terms of the loss have curves beside it, each in its own unit.

    >>> text = curves_svg([{"epoch": 1, "loss": 2.0, "train_accuracy": 0.5, "validation_accuracy": None}])
    >>> text.startswith("<svg"), text.count("<circle")
    (True, 2)
    """
    terms = list(dict.fromkeys(name for record in records for name in record.get("terms", {})))
    flat = [
        {**record, **{f"term {name}": value for name, value in record.get("terms", {}).items()}} for record in records
    ]
    panels = [*PANELS, *((f"{name} (without its weight)", ((f"term {name}", "#4a7f3f"),)) for name in terms)]
    drawn = [_panel(title, lines, flat, k * HEIGHT) for k, (title, lines) in enumerate(panels)]
    height = HEIGHT * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "".join(drawn)
        + "</svg>\n"
    )


def _panel(title: str, lines: Sequence[tuple[str, str]], records: Sequence[Mapping[str, Any]], top: int) -> str:
    points = {key: [(r["epoch"], r[key]) for r in records if _is_number(r.get(key))] for key, _ in lines}
    values = [value for found in points.values() for _, value in found]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    last = max((int(r["epoch"]) for r in records), default=1)

    def at(epoch: float, value: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - 20) * ((epoch - 1) / (last - 1) if last > 1 else 0.5)
        return across, top + TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [f'<text x="{LEFT}" y="{top + 20}" font-weight="bold">{escape(title)}</text>']
    for value in (low, (low + high) / 2, high):
        _, y = at(1, value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for epoch in sorted({1, (1 + last) // 2, last}):
        x, _ = at(epoch, low)
        parts.append(f'<text x="{x:.1f}" y="{top + HEIGHT - 14}" text-anchor="middle">epoch {epoch}</text>')
    for k, (key, colour) in enumerate(lines):
        places = [at(*point) for point in points[key]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
        if len(lines) > 1 and places:
            parts.append(f'<text x="{LEFT + 100 + 90 * k}" y="{top + 20}" fill="{colour}">{NAMES[key]}</text>')
    return "".join(parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)

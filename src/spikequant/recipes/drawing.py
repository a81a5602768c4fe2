"""Lines in one SVG: training curves, EMD against bits, distributions of firing rates."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, LEGEND = 460, 300, 62, 44, 28, 190
COLOURS = ("#d1495b", "#2e86ab", "#5b8c5a", "#8d6a9f", "#c77d1e", "#4f5d75", "#b0467b", "#7a7a2b")


@dataclass(frozen=True, kw_only=True)
class Lines:
    """One figure: named lines over common axes; a y axis may be logarithmic."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Points]
    log: bool = False


def svg(figure: Lines) -> str:
    """The figure as SVG text, or the words that there is nothing to draw.

    >>> text = svg(Lines(title="loss", x="epoch", y="loss", lines={"float": [(1, 2.0), (2, 1.0)]}))
    >>> text.count("<polyline"), "float" in text
    (1, True)
    """
    drawn = {
        name: [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not figure.log)]
        for name, points in figure.lines.items()
    }
    every = [point for points in drawn.values() for point in points]
    plane = _Plane.around(every or [(0.0, 1.0)], figure.log)
    parts = _axes(figure, plane)
    for number, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(plane.across(x), plane.up(y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dash = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"/>' for x, y in places if len(places) < 12]
        parts.append(f'<text x="{WIDTH + 10}" y="{TOP + 14 + 17 * number}" fill="{colour}">{html.escape(name)}</text>')
    height = max(HEIGHT, TOP + 20 + 17 * len(drawn))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEGEND} {height}" width="{WIDTH + LEGEND}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{html.escape(figure.title)}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


@dataclass(frozen=True)
class _Plane:
    """Where a point of the data lies on the page."""

    left: float
    right: float
    low: float
    high: float
    log: bool

    @staticmethod
    def around(points: Points, log: bool) -> _Plane:
        xs = [x for x, _ in points]
        ys = [math.log10(y) if log else y for _, y in points]
        margin = 0.05 * ((max(ys) - min(ys)) or 1.0)
        return _Plane(min(xs), max(xs), min(ys) - margin, max(ys) + margin, log)

    def across(self, x: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * (x - self.left) / ((self.right - self.left) or 1.0)

    def up(self, y: float) -> float:
        value = math.log10(y) if self.log else y
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)

    def marks(self) -> list[tuple[float, float]]:
        """Value and height of five marks of the y axis."""
        steps = [self.low + (self.high - self.low) * k / 4 for k in range(5)]
        values = [10**step if self.log else step for step in steps]
        return [(value, self.up(value)) for value in values]


def _axes(figure: Lines, plane: _Plane) -> list[str]:
    floor = HEIGHT - BOTTOM
    xs = sorted({x for points in figure.lines.values() for x, _ in points})
    shown = xs if len(xs) <= 8 else [xs[round(k * (len(xs) - 1) / 5)] for k in range(6)]
    parts = [
        f'<text x="{LEFT}" y="16" font-weight="bold">{html.escape(figure.title)}</text>',
        f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH}" fill="none" stroke="#333333"/>',
        f'<text x="{(LEFT + WIDTH) // 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(figure.x)}</text>',
        f'<text x="14" y="{(TOP + floor) // 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(TOP + floor) // 2})">{html.escape(figure.y)}</text>',
    ]
    parts += [f'<text x="{plane.across(x):.0f}" y="{floor + 16}" text-anchor="middle">{x:.3g}</text>' for x in shown]
    for value, height in plane.marks():
        parts.append(f'<text x="{LEFT - 5}" y="{height + 4:.0f}" text-anchor="end">{value:.2g}</text>')
        parts.append(f'<path d="M{LEFT} {height:.1f}H{WIDTH}" stroke="#dddddd" stroke-width="0.6"/>')
    return parts

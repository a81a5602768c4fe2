"""Lines of cost against T, batch, width and bits, as one SVG for each or as one for all."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from spikequant.bench.growth import Point

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 520, 300, 60, 40, 24, 180
COLOURS = ("#d1495b", "#2e86ab", "#5b8c5a", "#8d6a9f")


def drawings(points: Sequence[Point]) -> list[str]:
    """One figure for each thing that was varied, both axes logarithmic."""
    varied = list(dict.fromkeys(p.varied for p in points))
    return [_figure([p for p in points if p.varied == name], name) for name in varied]


def picture(points: Sequence[Point]) -> str:
    """All figures in one SVG file, two in a row, on a ground of their own."""
    figures = [f.removeprefix("<figure>").removesuffix("</figure>") for f in drawings(points)]
    wide, high = WIDTH + RIGHT, HEIGHT
    placed = [
        figure.replace("<svg ", f'<svg x="{k % 2 * wide}" y="{k // 2 * high}" height="{high}" ', 1)
        for k, figure in enumerate(figures)
    ]
    size = f'width="{2 * wide}" height="{-(-len(figures) // 2) * high}"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    style = 'font-family="sans-serif" font-size="12" color="black"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{ground}{"".join(placed)}</svg>\n'


def _figure(points: Sequence[Point], varied: str) -> str:
    names = list(points[0].milliseconds)
    xs = [math.log2(p.value) for p in points]
    ys = [math.log10(v) for p in points for v in p.milliseconds.values()]
    low, high = min(ys) - 0.05, max(ys) + 0.05

    def across(value: float) -> float:
        span = (xs[-1] - xs[0]) or 1.0
        return LEFT + (WIDTH - LEFT - 10) * (value - xs[0]) / span

    def up(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<line x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH}" y2="{HEIGHT - BOTTOM}" stroke="currentColor"/>',
        f'<line x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{HEIGHT - BOTTOM}" stroke="currentColor"/>',
        f'<text x="{LEFT}" y="{TOP - 8}">ms per training step</text>',
        f'<text x="{(LEFT + WIDTH) // 2}" y="{HEIGHT - 6}">{html.escape(varied)}</text>',
    ]
    for p, x in zip(points, xs, strict=True):
        parts.append(f'<text x="{across(x):.0f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{p.value}</text>')
    for value in (low + 0.05, (low + high) / 2, high - 0.05):
        parts.append(f'<text x="{LEFT - 6}" y="{up(value) + 4:.0f}" text-anchor="end">{10**value:.3g}</text>')
    for k, name in enumerate(names):
        colour = COLOURS[k % len(COLOURS)]
        line = " ".join(
            f"{across(x):.1f},{up(math.log10(p.milliseconds[name])):.1f}" for p, x in zip(points, xs, strict=True)
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH + 8}" y="{TOP + 14 + 18 * k}" style="fill:{colour}">{html.escape(name)}</text>')
    box = f'viewBox="0 0 {WIDTH + RIGHT} {HEIGHT}" width="{WIDTH + RIGHT}"'
    return (
        f'<figure><svg {box} role="img" aria-label="cost against {html.escape(varied)}">{"".join(parts)}</svg></figure>'
    )

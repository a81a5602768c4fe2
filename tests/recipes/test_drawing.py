"""Lines in an SVG."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from spikequant.recipes.drawing import HEIGHT, WIDTH, Lines, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def _points(text: str) -> list[list[tuple[float, float]]]:
    drawn = [line.get("points", "") for line in ElementTree.fromstring(text).iter(f"{NAMESPACE}polyline")]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in drawn]


def test_every_line_is_drawn_in_order_and_on_the_page() -> None:
    text = svg(Lines(title="t", x="epoch", y="loss", lines={"a": [(1, 3.0), (2, 1.0)], "b": [(1, 2.0), (2, 2.0)]}))
    a, b = _points(text)
    assert a[0][1] < b[0][1] < a[1][1]  # the larger value lies higher
    assert b[0][1] == b[1][1]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in a + b)


def test_a_logarithmic_axis_spaces_by_ratio_and_leaves_out_what_has_no_logarithm() -> None:
    figure = Lines(title="t", x="l", y="EMD", lines={"a": [(1, 0.001), (2, 0.01), (3, 0.1), (4, 0.0)]}, log=True)
    (line,) = _points(svg(figure))
    heights = [y for _, y in line]
    assert len(line) == 3
    assert math.isclose(heights[0] - heights[1], heights[1] - heights[2], abs_tol=0.2)


def test_names_are_escaped_and_nothing_to_draw_is_a_picture_too() -> None:
    text = svg(Lines(title="<b>", x="x", y="y", lines={"a<b": [(0, math.nan)]}))
    ElementTree.fromstring(text)
    assert "a&lt;b" in text
    assert not re.search("nan|inf", text)

"""The tables of the benchmark, as Markdown and as a page of HTML."""

from __future__ import annotations

import html as escape
from collections.abc import Sequence

from spikequant.bench.ceilings import Ceilings, Needs
from spikequant.bench.growth import Point
from spikequant.bench.rows import INFERENCE, TRAINING, Result, Row

Table = tuple[list[str], list[list[str]]]
MIB = 2**20


def result_table(result: Result) -> Table:
    """Every row: both works with median, least and most, ratios to the fastest other in float32 and bfloat16."""
    heads = ["network", "quantized"]
    for work in (TRAINING, INFERENCE):
        heads += [f"{work}, ms", "(min to max)", "/ fp32", "/ bf16"]
    heads += ["peak of a step, MiB", "firing rates"]
    rows = [_cells(result, row) for row in result.rows]
    if all(row.peak is None for row in result.rows):
        heads.pop(-2)
        for cells in rows:
            cells.pop(-2)
    return heads, rows


def _cells(result: Result, row: Row) -> list[str]:
    cells = [f"**{row.name}**" if row.is_ours else row.name, row.kind]
    for work in (TRAINING, INFERENCE):
        times = row.times.get(work)
        if times is None:
            cells += ["", "", "", ""]
            continue
        cells += [_ms(times.median), f"{_ms(times.least)} to {_ms(times.most)}" if times.rounds > 1 else "once"]
        cells += [_ratio(result.ratio(row, work, half=half)) for half in (False, True)]
    cells.append("" if row.peak is None else f"{row.peak / MIB:.0f}")
    cells.append(" ".join(f"{rate:.1%}" for rate in row.rates))
    return cells


def _ms(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def ceiling_table(found: Sequence[tuple[Result, Needs]], machine: Ceilings) -> Table:
    """Bytes and multiply-adds of a forward pass, the least time at the measured ceilings, the share reached."""
    heads = ["workload", "bytes, MB", "MACs, M", "least ms", "network", "ms", "share of the ceiling"]
    rows = []
    for result, needed in found:
        least = needed.seconds(machine)
        for row in result.rows:
            if row.is_ours and INFERENCE in row.times:
                took = row.times[INFERENCE].median
                counted = [f"{needed.bytes / 1e6:.0f}", f"{needed.macs / 1e6:.0f}", _ms(least)]
                rows.append([result.workload, *counted, row.name, _ms(took), f"{least / took:.0%}"])
    return heads, rows


def growth_table(points: Sequence[Point]) -> Table:
    """Milliseconds of a training step by what was varied."""
    names = list(points[0].milliseconds)
    return ["varied", "value", *names], [
        [p.varied, str(p.value), *(f"{p.milliseconds[n]:.3g}" for n in names)] for p in points
    ]


def markdown(table: Table) -> str:
    """A table in Markdown.

    >>> print(markdown((["a", "b"], [["1", "2"]])))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    heads, rows = table
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def html(title: str, words: Sequence[str], parts: Sequence[tuple[str, Table]], drawings: Sequence[str] = ()) -> str:
    """One page without scripts and requests."""
    body = [f"<h1>{escape.escape(title)}</h1>", *(f"<p>{escape.escape(word)}</p>" for word in words)]
    for heading, (heads, rows) in parts:
        body.append(f"<h2>{escape.escape(heading)}</h2><div class=scroll><table><thead><tr>")
        body.append("".join(f"<th>{escape.escape(h)}</th>" for h in heads) + "</tr></thead><tbody>")
        for row in rows:
            cells = "".join(f"<td>{escape.escape(cell.strip('*'))}</td>" for cell in row)
            body.append(f"<tr{' class=own' if row[0].startswith('**') else ''}>{cells}</tr>")
        body.append("</tbody></table></div>")
    body += drawings
    head = f"<meta charset=utf-8><title>{escape.escape(title)}</title>{STYLE}"
    return f"<!doctype html><html lang=en>{head}<body>{''.join(body)}</body></html>\n"


STYLE = """<meta name=viewport content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 78rem; padding: 0 1rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; white-space: nowrap }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left } .own { font-weight: 600 }
figure { margin: 1.5rem 0 } svg { max-width: 100%; height: auto } svg text { fill: currentColor; font-size: 12px }
</style>"""

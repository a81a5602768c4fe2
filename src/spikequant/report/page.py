"""`write_report`: a comparison as one HTML file that opens without a network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from spikequant.analyse import Comparison
from spikequant.explore import Study
from spikequant.law.atomic import write_text
from spikequant.law.errors import DataError
from spikequant.measure import cost
from spikequant.plan import Plan
from spikequant.quantize import QuantizeReport
from spikequant.report import tables
from spikequant.report.assets import filled
from spikequant.report.provenance import Provenance
from spikequant.report.study_page import render_study
from spikequant.report.view import Panel, panel
from spikequant.report.wording import headline_of_many

Item = TypeVar("Item")


def write_report(
    comparison: Comparison | Mapping[str, Comparison] | Study,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    plan: Plan | Mapping[str, Plan] | None = None,
    quantize_report: QuantizeReport | Mapping[str, QuantizeReport] | None = None,
    provenance: Provenance | None = None,
    warnings: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> Path:
    """Write one self-contained HTML page about `comparison`; the same input gives the same bytes.

    `comparison` may be several, by name, against one reference; `plan` and `quantize_report`
    may then be mappings of the same names.  It may also be a `Study`: then the page shows its
    front, what mattered, what each role tolerates and the chosen candidate; `links` names
    files of that candidate (its comparison, its integers) with their places beside the page,
    and `plan` and `quantize_report` are not asked for.  The page is about 5 MB: 4.8 of them are plotly.js,
    inlined once, because the Python package ships no smaller bundle.  A policy in the page
    forbids every request and every script but its own.

    Raises:
        Unsupported: plotly or jinja2 is not installed.
        DataError: something else than a comparison or a study, none at all, different references, a name that no
            comparison has, or an argument that belongs to the other kind of page.
        ArtifactError: the folder is missing or cannot be written; an older file stays whole.
    """
    if isinstance(comparison, Study):
        if plan is not None or quantize_report is not None:
            raise DataError("write_report: a study has its plans; plan and quantize_report belong to a comparison")
        write_text(path, render_study(comparison, title, provenance, tuple(warnings), dict(links or {})))
        return Path(path)
    many = dict(comparison) if isinstance(comparison, Mapping) else {"": comparison}
    _check(many)
    if links:
        raise DataError("write_report: links belong to the page of a study")
    plans, reports = _by_name(plan, many, "plan"), _by_name(quantize_report, many, "quantize_report")
    panels = [panel(f"n{i}", name, c, plans.get(name), reports.get(name)) for i, (name, c) in enumerate(many.items())]
    write_text(path, render(panels, many, title=title, provenance=provenance, warnings=warnings))
    return Path(path)


def _check(many: Mapping[str, Comparison]) -> None:
    if not many:
        raise DataError("write_report: no comparison was given; expected one, or a mapping with at least one")
    for name, c in many.items():
        if not isinstance(c, Comparison):
            raise DataError(
                f"write_report: got {type(c).__name__}{f' as {name!r}' if name else ''}; "
                "expected a Comparison (sq.compare), a mapping of names to them, or a Study (sq.explore)"
            )
    empty = [name for name, c in many.items() if not c.layers]
    if empty:
        raise DataError(f"write_report: {', '.join(empty)} compares no neuron layer; expected at least one")
    first, *others = many.items()
    for name, c in others:
        if c.samples != first[1].samples or c.reference.accuracy != first[1].reference.accuracy:
            raise DataError(
                f"write_report: {first[0]!r} and {name!r} have different references (accuracy "
                f"{first[1].reference.accuracy:.4f} of {first[1].samples} samples, {c.reference.accuracy:.4f} of "
                f"{c.samples}); expected one reference and the same data, or write one report for each"
            )


def _by_name(value: Item | Mapping[str, Item] | None, many: Mapping[str, Comparison], what: str) -> dict[str, Item]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return dict.fromkeys(many, value)
    unknown = sorted(set(value) - set(many))
    if unknown:
        raise DataError(f"write_report: {what} names {unknown}, the comparisons are {sorted(many)}")
    return dict(value)


def render(
    panels: Sequence[Panel],
    comparisons: Mapping[str, Comparison],
    *,
    title: str | None = None,
    provenance: Provenance | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """The page as text."""
    several = len(panels) > 1
    first = next(iter(comparisons.values()))
    return filled(
        "page.html.j2",
        "page.js",
        title=title or "What quantization changed" + ("" if several or not panels[0].name else f": {panels[0].name}"),
        lead=headline_of_many(comparisons) if several else panels[0].headline,
        panels=panels,
        summary=tables.summary_table(comparisons) if several else None,
        comparison=first,
        provenance=provenance,
        warnings=tuple(warnings),
        constants=cost,
        data=[{"key": p.key, "first": p.first_layer, "plots": p.plots, "layers": p.layers} for p in panels],
    )

"""`write_report`: a comparison as one HTML file that opens without a network."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from spikequant.analyse import Comparison
from spikequant.law.atomic import write_text
from spikequant.law.errors import DataError, Unsupported
from spikequant.measure import cost
from spikequant.plan import Plan
from spikequant.quantize import QuantizeReport
from spikequant.report import tables
from spikequant.report.provenance import Provenance
from spikequant.report.view import Panel, panel
from spikequant.report.wording import headline_of_many

Item = TypeVar("Item")


def write_report(
    comparison: Comparison | Mapping[str, Comparison],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    plan: Plan | Mapping[str, Plan] | None = None,
    quantize_report: QuantizeReport | Mapping[str, QuantizeReport] | None = None,
    provenance: Provenance | None = None,
    warnings: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML page about `comparison`; the same input gives the same bytes.

    `comparison` may be several, by name, against one reference; `plan` and `quantize_report`
    may then be mappings of the same names.  The page is about 5 MB: 4.8 of them are plotly.js,
    inlined once, because the Python package ships no smaller bundle.  A policy in the page
    forbids every request and every script but its own.

    Raises:
        Unsupported: plotly or jinja2 is not installed.
        DataError: no comparison, different references, or a name that no comparison has.
        ArtifactError: the folder is missing or cannot be written; an older file stays whole.
    """
    many = dict(comparison) if isinstance(comparison, Mapping) else {"": comparison}
    _check(many)
    plans, reports = _by_name(plan, many, "plan"), _by_name(quantize_report, many, "quantize_report")
    panels = [panel(f"n{i}", name, c, plans.get(name), reports.get(name)) for i, (name, c) in enumerate(many.items())]
    write_text(path, render(panels, many, title=title, provenance=provenance, warnings=warnings))
    return Path(path)


def _check(many: Mapping[str, Comparison]) -> None:
    if not many:
        raise DataError("write_report: no comparison was given; expected one, or a mapping with at least one")
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
    environment, plotly_js = _libraries()
    scripts = [plotly_js, _resource("plots.js"), _resource("page.js")]
    several = len(panels) > 1
    first = next(iter(comparisons.values()))
    page: str = environment.get_template("page.html.j2").render(
        title=title or "What quantization changed" + ("" if several or not panels[0].name else f": {panels[0].name}"),
        lead=headline_of_many(comparisons) if several else panels[0].headline,
        panels=panels,
        summary=tables.summary_table(comparisons) if several else None,
        comparison=first,
        provenance=provenance,
        warnings=tuple(warnings),
        constants=cost,
        style=_resource("page.css"),
        scripts=scripts,
        policy=_policy(scripts),
        data=[{"key": p.key, "first": p.first_layer, "plots": p.plots, "layers": p.layers} for p in panels],
    )
    return page


def _libraries() -> tuple[Any, str]:
    """The template environment and plotly.js; imported here so that `import spikequant` stays light."""
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        missing = (error.name or str(error)).split(".")[0]
        raise Unsupported(
            f"write_report needs jinja2 and plotly, and {missing} is not installed; "
            "install them with: pip install 'spikequant[report]'"
        ) from error
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment, get_plotlyjs()


def _resource(name: str) -> str:
    return files("spikequant.report").joinpath(name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy: these scripts by their hashes, nothing from anywhere else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"

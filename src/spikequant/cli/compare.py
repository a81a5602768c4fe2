"""``spikequant compare``: quantized networks of several runs side by side, from what the runs measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli import options
from spikequant.cli.figures import figures_table, layer_table, number
from spikequant.cli.measured import Measured, measured_networks
from spikequant.cli.pages import unique_names, write_page
from spikequant.cli.run_folder import made_folder
from spikequant.cli.screen import Screen
from spikequant.cli.tables import Table
from spikequant.law.errors import DataError

if TYPE_CHECKING:
    from spikequant.analyse import Comparison


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders of `spikequant quantize` or `spikequant demo`.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write one report.html about all of them there.", show_default="no page"),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Put quantized networks side by side: accuracy, firing, memory, operations, bits.

    Examples:
      spikequant compare runs/w4u8 runs/small --out runs/compared
      spikequant compare runs/demo

    One run is shown against the real network that it came from, several against that and each
    other. Nothing is computed again: the runs hold their figures. They must come from the same
    real network and the same test data, else the figures could not be compared.
    """
    found = unique_names([network for folder in runs for network in measured_networks(folder)])
    _check_same(list(found.values()))
    comparisons = {name: network.comparison for name, network in found.items()}
    screen = Screen(as_json=as_json)
    screen.table(figures_table(comparisons))
    screen.say()
    if len(found) == 1:
        screen.table(layer_table(next(iter(comparisons.values()))))
    else:
        screen.table(_layers(comparisons))
        screen.say()
        screen.table(_bits(comparisons))
        screen.say()
        for sentence in _dominated(comparisons):
            screen.say(sentence)
    page = None if out is None else write_page(list(found.values()), made_folder(out))
    if page is not None:
        screen.say(f"Page: {page}")
    screen.document(
        {"command": "compare", "report": page, "networks": [_record(name, network) for name, network in found.items()]}
    )


def _check_same(networks: list[Measured]) -> None:
    first = networks[0]
    for other in networks[1:]:
        mine, theirs = _data(first), _data(other)
        if mine != theirs:
            raise DataError(
                f"{first.folder} was measured on {mine} and {other.folder} on {theirs}; "
                "compare runs on the same test data (the same --data and --limit)"
            )
        a, b = first.comparison.reference.accuracy, other.comparison.reference.accuracy
        if a != b:
            raise DataError(
                f"{first.folder} and {other.folder} start from different real networks ({a:.2%} and {b:.2%} right); "
                "compare runs that were quantized from the same weights"
            )


def _data(network: Measured) -> str:
    record = network.config.data or {}
    fold = "" if record.get("fold") is None else f", fold {record['fold']}"
    return f"{network.comparison.samples:,} samples of {record.get('name')}{fold}"


def _layers(comparisons: Mapping[str, Comparison]) -> Table:
    """EMD of every layer in every network."""
    columns = [{layer.layer: number(layer.emd) for layer in c.layers} for c in comparisons.values()]
    rows = tuple((layer, *(column.get(layer, "-") for column in columns)) for layer in columns[0])
    return Table(("EMD of layer", *comparisons), rows)


def _bits(comparisons: Mapping[str, Comparison]) -> Table:
    """Bits of weights and membranes of every layer in every network."""
    columns = []
    for c in comparisons.values():
        rows = [row for row in c.quantized.memory if row.role in ("weight", "membrane")]
        columns.append({f"{row.layer} {row.role}": str(row.bits) for row in rows})
    names = list(dict.fromkeys(name for column in columns for name in column))
    return Table(
        ("bits", *comparisons), tuple((name, *(column.get(name, "-") for column in columns)) for name in names)
    )


def _dominated(comparisons: Mapping[str, Comparison]) -> list[str]:
    """A sentence for each network than which another is smaller and at least as accurate."""
    sizes = {name: c.quantized.flash_bytes + c.quantized.ram_bytes for name, c in comparisons.items()}
    right = {name: c.quantized.accuracy for name, c in comparisons.items()}
    sentences = []
    for name in comparisons:
        better = [o for o in comparisons if sizes[o] < sizes[name] and right[o] >= right[name]]
        if better:
            best = min(better, key=lambda other: sizes[other])
            gain = 100 * (right[best] - right[name])
            sentences.append(f"{best} is smaller than {name} and not less accurate ({gain:+.2f} points).")
    return sentences


def _record(name: str, network: Measured) -> dict[str, Any]:
    return {
        "name": name,
        "run": network.folder,
        "sha256": network.sha256,
        "plan": network.plan.to_dict(),
        "comparison": network.comparison.to_dict(),
    }

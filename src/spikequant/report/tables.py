"""Tables of the page: what stands in each cell, and the number by which a column sorts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spikequant.analyse import Comparison, LayerBehaviour, Side
from spikequant.quantize import QuantizeReport
from spikequant.report.numerals import ABSENT, NOT_MEASURED, count, decimal, energy, percent, points, size, times
from spikequant.report.wording import fell_silent


@dataclass(frozen=True, kw_only=True)
class Column:
    """Head of a column; `group` is the head above several columns, `hint` says what it means."""

    label: str
    group: str = ""
    hint: str = ""
    numeric: bool = True

    @property
    def name(self) -> str:
        """What a screen reader hears."""
        return f"{self.group}, {self.label}" if self.group else self.label


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is shown, and what is sorted by; None (not measured) sorts last."""

    text: str
    value: float | str | None = None
    alarm: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a caption for those who cannot see where it stands."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sorts: bool = False

    def groups(self) -> list[tuple[str, int]]:
        """Heads above the columns with how many they span; nothing where no column has one."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if column.group and found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found if any(name for name, _ in found) else []


def layer_table(comparison: Comparison) -> Table:
    """One row per neuron layer."""
    columns = [Column(label="Layer", numeric=False), Column(label="Neurons")]
    columns.append(Column(label="State bits", hint="bits of the stored membrane, before → after"))
    columns += _before_after("Mean rate", "spikes per step")
    columns.append(Column(label="EMD", hint="distance between the two distributions of rates"))
    columns.append(Column(label="halves", group="EMD floor between", hint="two halves of the data, reference network"))
    columns.append(Column(label="seeds", group="EMD floor between", hint="two float networks of different seeds"))
    columns.append(Column(label="\u00d7 floor", hint="EMD over the larger floor that was measured"))
    columns.append(Column(label="Matched L1", hint="mean change of a neuron's own rate"))
    columns += _before_after("Dead", f"rate below {comparison.dead_below:g}")
    columns += _before_after("Silent", "never fired")
    columns += _before_after("Saturated", "rate of 0.95 or more")
    rows = tuple(_layer_row(layer, place, comparison) for place, layer in enumerate(comparison.layers))
    return Table(caption="Firing behaviour by layer", columns=tuple(columns), rows=rows, sorts=True)


def _before_after(group: str, hint: str) -> list[Column]:
    return [Column(label=side, group=group, hint=f"{hint}, {side}") for side in ("before", "after")]


def _layer_row(layer: LayerBehaviour, place: int, comparison: Comparison) -> tuple[Cell, ...]:
    gone = layer.layer in {silent.layer for silent in fell_silent(comparison)}
    seeds = math.nan if layer.seed_floor is None else layer.seed_floor
    floor = max((f for f in (layer.floor, seeds) if not math.isnan(f)), default=math.nan)
    ratio = layer.emd / floor if floor > 0 else math.nan
    before, after = (_state_bits(side, layer.layer) for side in (comparison.reference, comparison.quantized))
    return (
        Cell(text=layer.layer, value=float(place), alarm=gone),  # sorts by the order of the network
        number_cell(layer.neurons, count),
        Cell(text=f"{_bits(before)} → {_bits(after)}", value=after),
        number_cell(layer.reference_rate, decimal),
        number_cell(layer.rate, decimal),
        number_cell(layer.emd, decimal),
        number_cell(layer.floor, decimal),
        number_cell(seeds, decimal),
        number_cell(ratio, times, alarm=ratio > 1),
        number_cell(layer.matched_l1, decimal),
        *(_share(value) for value in (layer.reference_dead, layer.dead)),
        _share(layer.reference_silent),
        number_cell(layer.silent, lambda v: percent(v, 1), alarm=gone),
        *(_share(value) for value in (layer.reference_saturated, layer.saturated)),
    )


def _state_bits(side: Side, layer: str) -> float | None:
    bits = [row.bits for row in side.memory if row.layer == layer and row.role == "membrane"]
    return float(bits[0]) if bits else None


def _bits(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}"


def summary_table(comparisons: Mapping[str, Comparison]) -> Table:
    """The reference and every quantized network, one row each."""
    first = next(iter(comparisons.values()))
    names = (
        "Network",
        "Accuracy",
        "Change, points (95 %)",
        "EMD",
        "Dead",
        "Flash",
        "RAM",
        "SynOps",
        "Energy, integer and traffic",
    )
    columns = tuple(Column(label=name, numeric=name != "Network") for name in names)
    reference = ("reference", percent(first.reference.accuracy), ABSENT, ABSENT, percent(first.reference_dead, 1))
    rows = [tuple(Cell(text=text) for text in (*reference, *_costs(first.reference)))]
    for name, c in comparisons.items():
        change = points(c.difference, c.interval).removesuffix("points").strip()
        texts = (percent(c.quantized.accuracy), change, decimal(c.emd), percent(c.dead, 1), *_costs(c.quantized))
        rows.append((Cell(text=name, alarm=bool(fell_silent(c))), *(Cell(text=text) for text in texts)))
    return Table(caption="All networks side by side", columns=columns, rows=tuple(rows))


def _costs(side: Side) -> tuple[str, ...]:
    synops = count(side.effective_acs + side.effective_macs)
    return size(side.flash_bytes), size(side.ram_bytes), synops, energy(side.energy.integer_ops_and_traffic)


def report_table(report: QuantizeReport) -> Table:
    """What `quantize_` did to every module, and why it left something alone."""
    names = ("Module", "Kind", "Role", "Quantizer", "Bits", "Range", "SQNR, dB", "Note")
    columns = tuple(Column(label=name, numeric=name in ("Bits", "SQNR, dB")) for name in names)
    rows = tuple(
        tuple(Cell(text=text) for text in (
            row.module, row.kind, row.role, row.quantizer or ABSENT, _bits(row.bits),
            ABSENT if row.low is None or row.high is None else f"{row.low:.3g} … {row.high:.3g}",
            ABSENT if row.sqnr_db is None else f"{row.sqnr_db:.1f}", row.note,
        ))
        for row in report.rows
    )  # fmt: skip
    return Table(caption="What was quantized, and what was not", columns=columns, rows=rows)


def _share(value: float) -> Cell:
    return number_cell(value, lambda v: percent(v, 1))


def number_cell(value: float, show: Callable[[float], str], absent: str = NOT_MEASURED, *, alarm: bool = False) -> Cell:
    """What `show` makes of a number; NaN shows `absent` and sorts last."""
    if math.isnan(value):
        return Cell(text=absent)
    return Cell(text=show(value), value=float(value), alarm=alarm)

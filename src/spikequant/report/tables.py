"""Tables of the page: what stands in each cell, and the number by which a column sorts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from spikequant.analyse import Comparison, LayerBehaviour, Side
from spikequant.measure import FLASH_ROLES, RAM_ROLES, MemoryRow, memory_by_role
from spikequant.quantize import QuantizeReport
from spikequant.report.cost_plots import ENERGY_LINES
from spikequant.report.numerals import ABSENT, NOT_MEASURED, count, decimal, energy, percent, points, size, times
from spikequant.report.wording import fell_silent, memory_bytes


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
        _number(layer.neurons, count),
        Cell(text=f"{_bits(before)} → {_bits(after)}", value=after),
        _number(layer.reference_rate, decimal),
        _number(layer.rate, decimal),
        _number(layer.emd, decimal),
        _number(layer.floor, decimal),
        _number(seeds, decimal),
        _number(ratio, times, alarm=ratio > 1),
        _number(layer.matched_l1, decimal),
        *(_share(value) for value in (layer.reference_dead, layer.dead)),
        _share(layer.reference_silent),
        _number(layer.silent, lambda v: percent(v, 1), alarm=gone),
        *(_share(value) for value in (layer.reference_saturated, layer.saturated)),
    )


def _state_bits(side: Side, layer: str) -> float | None:
    bits = [row.bits for row in side.memory if row.layer == layer and row.role == "membrane"]
    return float(bits[0]) if bits else None


def _bits(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.0f}"


def memory_table(reference: Side, quantized: Side) -> Table:
    """Bytes by role, flash and RAM apart, with their sums."""
    before, after = (memory_by_role(side.memory) for side in (reference, quantized))
    rows = []
    for kind, roles, sums in (
        ("Flash", FLASH_ROLES, (reference.flash_bytes, quantized.flash_bytes)),
        ("RAM", RAM_ROLES, (reference.ram_bytes, quantized.ram_bytes)),
    ):
        present = [role for role in roles if role in before or role in after]
        rows += [_memory_row(kind, role, before.get(role, 0) / 8, after.get(role, 0) / 8) for role in present]
        rows.append(_memory_row(kind, "all", *sums))
    columns = (Column(label="Where", numeric=False), Column(label="Role", numeric=False),
               Column(label="Before"), Column(label="After"), Column(label="Times smaller"))  # fmt: skip
    return Table(caption="Memory by role, flash and RAM apart", columns=columns, rows=tuple(rows))


def _memory_row(kind: str, role: str, before: float, after: float) -> tuple[Cell, ...]:
    ratio = times(before / after) if before and after else ABSENT
    texts = (kind, role.replace("_", " "), size(before), size(after), ratio)
    return tuple(Cell(text=text) for text in texts)


def bits_table(reference: Side, quantized: Side) -> Table:
    """Every stored number by module and role, before and after."""
    before, after = (_by_number(side.memory) for side in (reference, quantized))
    rows = tuple(_bits_row(key, before.get(key, []), after.get(key, [])) for key in dict.fromkeys([*before, *after]))
    heads = (Column(label="Module", numeric=False), Column(label="Role", numeric=False))
    groups = ("Numbers", "Bits each", "Bytes")
    columns = (*heads, *(Column(label=side, group=group) for group in groups for side in ("before", "after")))
    return Table(caption="Bits of every stored number", columns=columns, rows=rows, sorts=True)


def _by_number(rows: Iterable[MemoryRow]) -> dict[tuple[str, str], list[MemoryRow]]:
    found: dict[tuple[str, str], list[MemoryRow]] = {}
    for row in rows:
        found.setdefault((row.layer, row.role), []).append(row)
    return found


def _bits_row(key: tuple[str, str], before: list[MemoryRow], after: list[MemoryRow]) -> tuple[Cell, ...]:
    module, role = key
    pair = (before, after)
    return (
        Cell(text=module, value=module),
        Cell(text=role.replace("_", " "), value=role),
        *(_number(sum(row.count for row in rows) if rows else math.nan, count, ABSENT) for rows in pair),
        *(_widths(rows) for rows in pair),
        *(_number(sum(row.total_bits for row in rows) / 8 if rows else math.nan, size, ABSENT) for rows in pair),
    )


def _widths(rows: list[MemoryRow]) -> Cell:
    """Several numbers of one role, such as threshold and its adaptation, may differ in bits."""
    widths = sorted({row.bits for row in rows}, reverse=True)
    return Cell(text=", ".join(map(str, widths)), value=float(widths[0])) if widths else Cell(text=ABSENT)


def operations_table(reference: Side, quantized: Side) -> Table:
    """Operations and energy per sample."""
    lines: list[tuple[str, float, float, Callable[[float], str]]] = [
        ("Accumulates (effective ACs)", reference.effective_acs, quantized.effective_acs, count),
        ("Multiply-accumulates (effective MACs)", reference.effective_macs, quantized.effective_macs, count),
        ("If no zero could be skipped (dense)", reference.dense, quantized.dense, count),
        *((f"Energy, {words}", getattr(reference.energy, name), getattr(quantized.energy, name), energy)
          for name, words in ENERGY_LINES),
    ]  # fmt: skip
    rows = tuple(
        (
            Cell(text=words),
            Cell(text=show(a)),
            Cell(text=show(b)),
            Cell(text=times(a / b) if b > 0 and a > 0 else ABSENT),
        )
        for words, a, b, show in lines
    )
    columns = (Column(label="Per sample", numeric=False), Column(label="Before"), Column(label="After"),
               Column(label="Times less"))  # fmt: skip
    return Table(caption="Operations and energy per sample", columns=columns, rows=rows)


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


def ann_table(comparison: Comparison) -> Table | None:
    """The spiking network beside the same-bits network without spikes, if there is one."""
    if comparison.ann is None:
        return None
    spiking, ann = comparison.quantized, comparison.ann.side
    measures: tuple[tuple[str, Callable[[Side], str]], ...] = (
        ("Accuracy", lambda side: percent(side.accuracy)),
        ("Memory", lambda side: size(memory_bytes(side))),
        ("Operations per sample", lambda side: count(side.effective_acs + side.effective_macs)),
        ("Energy, integer operations and memory traffic", lambda side: energy(side.energy.integer_ops_and_traffic)),
        ("Zeros among activations", lambda side: percent(side.activation_sparsity, 1)),
    )
    lines = [("Accuracy in float32", percent(comparison.reference.accuracy), percent(comparison.ann.float_accuracy))]
    lines += [(name, show(spiking), show(ann)) for name, show in measures]
    columns = (
        Column(label="Figure", numeric=False),
        Column(label="Spiking, quantized"),
        Column(label="Without spikes, same weight bits"),
    )
    rows = tuple(tuple(Cell(text=text) for text in line) for line in lines)
    return Table(caption="Beside a network without spikes", columns=columns, rows=rows)


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
    return _number(value, lambda v: percent(v, 1))


def _number(value: float, show: Callable[[float], str], absent: str = NOT_MEASURED, *, alarm: bool = False) -> Cell:
    if math.isnan(value):
        return Cell(text=absent)
    return Cell(text=show(value), value=float(value), alarm=alarm)

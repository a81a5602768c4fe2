"""Tables of what a network costs: memory by role, bits of every number, operations, energy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from spikequant.analyse import Comparison, LayerOperations, Side
from spikequant.measure import FLASH_ROLES, RAM_ROLES, MemoryRow, memory_by_role
from spikequant.report.cost_plots import ENERGY_LINES
from spikequant.report.numerals import ABSENT, count, energy, percent, size, times
from spikequant.report.tables import Cell, Column, Table, number_cell
from spikequant.report.wording import memory_bytes


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
        if quantized.in_c is not None:
            in_c = quantized.in_c.flash if kind == "Flash" else quantized.in_c.ram
            texts = (kind, "all, as exported C", ABSENT, size(in_c), "")
            rows.append(tuple(Cell(text=text) for text in texts))
    columns = (Column(label="Where", numeric=False), Column(label="Role", numeric=False),
               Column(label="Before"), Column(label="After"), Column(label="Change"))  # fmt: skip
    return Table(caption="Memory by role, flash and RAM apart", columns=columns, rows=tuple(rows))


def _memory_row(kind: str, role: str, before: float, after: float) -> tuple[Cell, ...]:
    texts = (kind, role.replace("_", " "), size(before), size(after), _change(before, after, "smaller", "larger"))
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
        *(number_cell(sum(row.count for row in rows) if rows else math.nan, count, ABSENT) for rows in pair),
        *(_widths(rows) for rows in pair),
        *(number_cell(sum(row.total_bits for row in rows) / 8 if rows else math.nan, size, ABSENT) for rows in pair),
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
    rows = [
        tuple(Cell(text=text) for text in (words, show(a), show(b), _change(a, b, "less", "more")))
        for words, a, b, show in lines
    ]
    for words, field in (("Zeros among weights", "connection_sparsity"), ("Zeros among spikes", "activation_sparsity")):
        shares = [percent(getattr(side, field), 1) for side in (reference, quantized)]
        rows.append(tuple(Cell(text=text) for text in (words, *shares, "")))
    columns = (Column(label="Per sample", numeric=False), Column(label="Before"), Column(label="After"),
               Column(label="Change"))  # fmt: skip
    return Table(caption="Operations and energy per sample", columns=columns, rows=tuple(rows))


def layer_operations_table(reference: Side, quantized: Side) -> Table:
    """Operations of every weighted layer, per sample."""
    before, after = ({row.layer: row for row in side.operations} for side in (reference, quantized))
    fields = (("ACs", "effective_acs"), ("MACs", "effective_macs"), ("Dense", "dense"))
    columns = (Column(label="Layer", numeric=False),
               *(Column(label=side, group=group) for group, _ in fields for side in ("before", "after")))  # fmt: skip
    rows = tuple(
        (Cell(text=layer, value=float(place)),
         *(_operations_cell(rows.get(layer), field) for _, field in fields for rows in (before, after)))
        for place, layer in enumerate(dict.fromkeys([*before, *after]))
    )  # fmt: skip
    return Table(caption="Operations by layer, per sample", columns=columns, rows=rows, sorts=True)


def _operations_cell(row: LayerOperations | None, field: str) -> Cell:
    return number_cell(math.nan if row is None else getattr(row, field), count, ABSENT)


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


def _change(before: float, after: float, less: str, more: str) -> str:
    if not (before > 0 and after > 0):
        return ABSENT
    ratio = max(before / after, after / before)
    return "the same" if ratio < 1.005 else f"{times(ratio)} times {less if after < before else more}"

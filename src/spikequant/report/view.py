"""What the template shows of one comparison: texts, tables, and the figures for the script."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from spikequant.analyse import Comparison, LayerBehaviour, Raster
from spikequant.plan import Plan
from spikequant.quantize import QuantizeReport
from spikequant.report import cost_plots, cost_tables, firing_plots, tables
from spikequant.report.numerals import count, decimal, energy, percent, points, size, times
from spikequant.report.raster_plots import raster_pair, spike_limit
from spikequant.report.wording import (
    always_silent,
    fell_silent,
    floor_standing,
    headline,
    layer_words,
    measured_floors,
    memory_bytes,
    memory_ratio,
)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A key figure: now, what to hold it against, and what that means."""

    label: str
    value: str
    against: str
    verdict: str
    bad: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Everything of one quantized network; `plots` and `layers` go to the script as JSON."""

    key: str
    name: str
    headline: str
    alarms: tuple[str, ...]
    tiles: tuple[Tile, ...]
    layer_table: tables.Table
    memory_table: tables.Table
    bits_table: tables.Table
    operations_table: tables.Table
    layer_operations_table: tables.Table
    ann_table: tables.Table | None
    ann: Any
    report_table: tables.Table | None
    report_notes: tuple[str, ...]
    divergence: str
    plan_toml: str | None
    notes: tuple[str, ...]
    first_layer: int
    plots: dict[str, Any] = field(repr=False)
    layers: list[dict[str, Any]] = field(repr=False)


def panel(key: str, name: str, comparison: Comparison, plan: Plan | None, report: QuantizeReport | None) -> Panel:
    """The view of one comparison; `key` begins the ids of its elements."""
    c = comparison
    return Panel(
        key=key,
        name=name,
        headline=headline(c),
        alarms=alarms(c),
        tiles=tiles(c),
        layer_table=tables.layer_table(c),
        memory_table=cost_tables.memory_table(c.reference, c.quantized),
        bits_table=cost_tables.bits_table(c.reference, c.quantized),
        operations_table=cost_tables.operations_table(c.reference, c.quantized),
        layer_operations_table=cost_tables.layer_operations_table(c.reference, c.quantized),
        ann_table=cost_tables.ann_table(c),
        ann=c.ann,
        report_table=tables.report_table(report) if report is not None else None,
        report_notes=report.notes if report is not None else (),
        divergence=divergence_words(c),
        plan_toml=plan.to_toml() if plan is not None else None,
        notes=c.notes,
        first_layer=max(range(len(c.layers)), key=lambda i: c.layers[i].emd),
        plots=_plots(c),
        layers=_layers(c),
    )


def alarms(comparison: Comparison) -> tuple[str, ...]:
    """What must not be missed: layers without a spike."""
    gone = [
        f"Layer {layer.layer} fell silent: none of its {count(layer.neurons)} neurons fires after quantization "
        f"(mean rate before {decimal(layer.reference_rate)}). What comes behind it sees nothing."
        for layer in fell_silent(comparison)
    ]
    never = [
        f"Layer {layer.layer} is silent in both networks: its figures prove nothing."
        for layer in always_silent(comparison)
    ]
    return (*gone, *never)


def tiles(c: Comparison) -> tuple[Tile, ...]:
    """The key figures side by side."""
    before, after = c.reference, c.quantized
    ratio = memory_ratio(c)
    synops = [side.effective_acs + side.effective_macs for side in (before, after)]
    floors = measured_floors(c)
    traffic = [energy(side.energy.integer_ops_and_traffic) for side in (before, after)]
    return (
        Tile(label="Accuracy", value=percent(after.accuracy), against=f"before {percent(before.accuracy)}",
             verdict=f"{points(c.difference, c.interval)}{_interval_verdict(c)}", bad=c.difference < -c.interval),
        Tile(label="Memory", value=size(memory_bytes(after)), against=f"before {size(memory_bytes(before))}",
             verdict=f"{_smaller(ratio)}; flash {size(after.flash_bytes)}, RAM {size(after.ram_bytes)}", bad=ratio < 1),
        Tile(label="Firing rates, EMD", value=decimal(c.emd), against=_floors(c),
             verdict=_emd_verdict(c), bad=bool(floors) and c.emd > max(floors)),
        Tile(label="Dead neurons", value=percent(c.dead, 1), against=f"before {percent(c.reference_dead, 1)}",
             verdict=f"Silent: {percent(c.silent, 1)}, before {percent(c.reference_silent, 1)}",
             bad=c.dead > c.reference_dead + 0.01),
        Tile(label="Operations per sample", value=count(synops[1]), against=f"before {count(synops[0])}",
             verdict=f"Energy {traffic[1]}, before {traffic[0]}", bad=synops[1] > 1.01 * synops[0]),
    )  # fmt: skip


def _smaller(ratio: float) -> str:
    if not math.isfinite(ratio):
        return "Nothing to compare"
    return f"{times(ratio)} times smaller" if ratio >= 1 else f"{times(1 / ratio)} times larger"


def _floors(c: Comparison) -> str:
    if c.seed_floor is None:
        return f"floor {decimal(c.floor)}"
    return f"floors {decimal(c.floor)} (halves), {decimal(c.seed_floor)} (seeds)"


def _emd_verdict(c: Comparison) -> str:
    if c.emd == 0:
        return "No difference in any layer"
    floors = measured_floors(c)
    if floors and 0 < floors[-1] < c.emd:
        return f"{times(c.emd / floors[-1])} times the {'larger ' if len(floors) > 1 else ''}floor"
    words = floor_standing(c)
    return words[0].upper() + words[1:]


def _interval_verdict(c: Comparison) -> str:
    if math.isnan(c.interval):
        return ""
    return ": within the interval" if abs(c.difference) <= c.interval else ": more than chance"


def divergence_words(c: Comparison) -> str:
    """Where spikes first differ, or that they do not."""
    d = c.first_divergence
    if d is None and any(layer.matched_l1 > 0 for layer in c.layers):
        return "Not recorded: the rates differ, so some spike does, but this comparison does not say which."
    if d is None:
        return f"None: every spike of all {count(c.samples)} samples is the same in both networks."
    return (
        f"Step {d.step}, layer {d.layer}, sample {d.sample}, neuron {d.neuron}: the reference emits {d.expected:g}, "
        f"the quantized network {d.got:g}. In {percent(c.diverged_samples, 1)} of {count(c.samples)} samples at least "
        "one spike differs. Later differences may follow from this one."
    )


def _plots(c: Comparison) -> dict[str, Any]:
    return {
        "emd": cost_plots.emd_by_layer(c),
        "flash": cost_plots.memory_of(c.reference, c.quantized, "flash"),
        "ram": cost_plots.memory_of(c.reference, c.quantized, "ram"),
        "energy": cost_plots.energy_of(c.reference, c.quantized),
        "bits": cost_plots.bits_of(c.quantized),
    }


def _layers(c: Comparison) -> list[dict[str, Any]]:
    rasters = {raster.layer: raster for raster in c.rasters}
    return [_layer(layer, rasters.get(layer.layer), len(c.layers), len(rasters)) for layer in c.layers]


def _layer(layer: LayerBehaviour, raster: Raster | None, layers: int, rasters: int) -> dict[str, Any]:
    r, q = layer.reference_rates, layer.rates
    limit = firing_plots.scatter_limit(layers)
    found: dict[str, Any] = {
        "name": layer.layer,
        "words": layer_words(layer),
        "shown": _shown_words(layer.neurons, limit),
        "quantiles": firing_plots.quantiles(r, q),
        "plots": {
            "histogram": firing_plots.histogram(r, q),
            "ecdf": firing_plots.ecdf(r, q),
            "scatter": firing_plots.rate_against_rate(r, q, limit),
        },
    }
    if raster is not None:
        pair = raster_pair(raster, spike_limit(rasters))
        found["raster"] = pair.words
        found["plots"] |= {"raster-reference": pair.reference, "raster-quantized": pair.quantized}
    return found


def _shown_words(neurons: int, limit: int) -> str:
    if neurons <= limit:
        return ""
    return (
        f"{count(limit)} of {count(neurons)} neurons: the {count(limit // 2)} that changed most and evenly spaced "
        "others."
    )

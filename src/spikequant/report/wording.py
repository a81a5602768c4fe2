"""What a comparison says, in sentences: the headline, the verdicts, the alarms.

The sentences give bad news as plainly as good news, and call nothing a change that the
data cannot tell from chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from spikequant.analyse import Comparison, LayerBehaviour, Side
from spikequant.report.numerals import count, decimal, percent, points, size, times

NUMBER_WORDS = dict(enumerate(("One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"), start=1))
MOST_NAMED = 3
HALVES, SEEDS = "two halves of the data", "two float seeds"


def headline(comparison: Comparison) -> str:
    """One sentence: silent layers first, then accuracy, memory, firing and dead neurons."""
    silent = fell_silent(comparison)
    opening = ""
    if silent:
        opening = f"{_listed([layer.layer for layer in silent], 'Layer', 'Layers')} fell silent: "
    first = accuracy_words(comparison)
    first = first if opening else first[0].upper() + first[1:]
    return f"{opening}{first}, {memory_words(comparison)}; {firing_words(comparison)}, and {dead_words(comparison)}."


def accuracy_words(comparison: Comparison) -> str:
    """The change of accuracy and whether the data can show it."""
    change, interval = comparison.difference, comparison.interval
    before, after = percent(comparison.reference.accuracy), percent(comparison.quantized.accuracy)
    if change == 0 and interval == 0:
        return f"accuracy is unchanged at {after}, on every sample"
    figures = points(change, interval)
    if math.isnan(change) or math.isnan(interval):
        return f"accuracy went from {before} to {after} ({figures})"
    if abs(change) <= interval:
        return f"accuracy did not change measurably, {before} before and {after} after ({figures})"
    return f"accuracy {'fell' if change < 0 else 'rose'} from {before} to {after} ({figures})"


def memory_words(comparison: Comparison) -> str:
    """How many times smaller the network is, flash and RAM together."""
    ratio = memory_ratio(comparison)
    before, after = size(memory_bytes(comparison.reference)), size(memory_bytes(comparison.quantized))
    if not math.isfinite(ratio):
        return "its memory not counted"
    if abs(ratio - 1) < 0.005:
        return f"in no less memory ({after})"
    if ratio < 1:
        return f"in {times(1 / ratio)} times more memory ({after} instead of {before})"
    return f"in {times(ratio)} times less memory ({after} instead of {before})"


def firing_words(comparison: Comparison) -> str:
    """The EMD of the network against each floor that was measured."""
    if comparison.emd == 0:
        return "the distributions of firing rates are the same in every layer (EMD 0)"
    return f"firing rates moved by an EMD of {decimal(comparison.emd)}, {floor_words(comparison)}"


def floor_words(comparison: Comparison | LayerBehaviour) -> str:
    """Where the EMD stands between the floors: two halves of the data, two float seeds."""
    emd = comparison.emd
    floors = {HALVES: _number(comparison.floor), SEEDS: _number(comparison.seed_floor)}
    measured = {name: value for name, value in floors.items() if not math.isnan(value)}
    if not measured:
        return "and its floor was not measured"
    within = [name for name, value in measured.items() if emd <= value]
    if within:
        above = [name for name in measured if name not in within]
        text = f"within the floor of {decimal(measured[within[0]])} between {within[0]}"
        return f"above the floor between {above[0]} ({decimal(measured[above[0]])}) but {text}" if above else text
    name, value = max(measured.items(), key=lambda item: item[1])
    if value == 0:
        return f"above the floor of 0 between {name}"
    return f"{times(emd / value)} times the floor of {decimal(value)} between {name}"


def measured_floors(comparison: Comparison) -> list[float]:
    """The floors that were measured, the smaller first."""
    floors = (comparison.floor, comparison.seed_floor)
    return sorted(floor for floor in floors if floor is not None and not math.isnan(floor))


def floor_standing(comparison: Comparison) -> str:
    """Where the EMD stands, in few words."""
    floors, emd = measured_floors(comparison), comparison.emd
    if not floors:
        return "without a floor to hold it against"
    if len(floors) == 1:
        return "within its floor" if emd <= floors[0] else "above its floor"
    return (
        "within both floors" if emd <= floors[0] else "above both floors" if emd > floors[1] else "between its floors"
    )


def dead_words(comparison: Comparison) -> str:
    """Dead neurons before and after."""
    before, after = percent(comparison.reference_dead, 1), percent(comparison.dead, 1)
    if before == after:
        return f"{after} of the neurons are dead, as before"
    return f"{after} of the neurons are dead ({before} before)"


def headline_of_many(comparisons: Mapping[str, Comparison]) -> str:
    """One sentence on several quantized networks of one reference."""
    reference = next(iter(comparisons.values())).reference
    number = NUMBER_WORDS.get(len(comparisons), count(len(comparisons)))
    plural = "s" if len(comparisons) > 1 else ""
    counted = f"{number} quantized network{plural} against one reference of {percent(reference.accuracy)}"
    if len(comparisons) <= MOST_NAMED:
        return f"{counted}: {'; '.join(_short(name, c) for name, c in comparisons.items())}."
    return f"{counted}: {_chosen(comparisons)}."


def _short(subject: str, c: Comparison) -> str:
    figures = f"{subject} has {percent(c.quantized.accuracy)} ({points(c.difference, c.interval)}) {_memory_short(c)}"
    silent = ", with silent layers" if fell_silent(c) else ""
    return f"{figures}, its EMD of {decimal(c.emd)} {floor_standing(c)}{silent}"


def _chosen(comparisons: Mapping[str, Comparison]) -> str:
    """Of many: the smallest that loses nothing measurable, or else the most accurate; and how many have gone silent."""
    kept = {n: c for n, c in comparisons.items() if c.difference >= (-c.interval if math.isfinite(c.interval) else 0.0)}
    if kept:
        name = max(kept, key=lambda name: (_sortable(memory_ratio(kept[name])), kept[name].difference))
        text = _short(f"the smallest without a measurable loss, {name},", kept[name])
    else:
        name = max(comparisons, key=lambda name: _sortable(comparisons[name].difference))
        text = f"all with a measurable loss; {_short(f'the most accurate, {name},', comparisons[name])}"
    silent = sum(bool(fell_silent(c)) for c in comparisons.values())
    return f"{text}; {count(silent)} of {count(len(comparisons))} have silent layers" if silent else text


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _memory_short(comparison: Comparison) -> str:
    ratio = memory_ratio(comparison)
    if not math.isfinite(ratio):
        return f"in {size(memory_bytes(comparison.quantized))}"
    if abs(ratio - 1) < 0.005:
        return "in no less memory"
    return f"in {times(max(ratio, 1 / ratio))} times {'less' if ratio >= 1 else 'more'} memory"


def fell_silent(comparison: Comparison) -> list[LayerBehaviour]:
    """Layers in which no neuron fires any more, although some did."""
    return [layer for layer in comparison.layers if layer.silent == 1 and layer.reference_silent < 1]


def always_silent(comparison: Comparison) -> list[LayerBehaviour]:
    """Layers in which no neuron fires in either network: they prove nothing."""
    return [layer for layer in comparison.layers if layer.silent == 1 and layer.reference_silent == 1]


def memory_bytes(side: Side) -> float:
    """Flash and RAM."""
    return side.flash_bytes + side.ram_bytes


def memory_ratio(comparison: Comparison) -> float:
    """Memory before over memory after; NaN without any."""
    after = memory_bytes(comparison.quantized)
    return memory_bytes(comparison.reference) / after if after > 0 else math.nan


def layer_words(layer: LayerBehaviour) -> str:
    """The text behind the plots of one layer."""
    rates = (
        f"{count(layer.neurons)} neurons, mean rate {decimal(layer.reference_rate)} before, {decimal(layer.rate)} after"
    )
    if layer.emd == 0:
        return f"{rates}; EMD 0, matched L1 {decimal(layer.matched_l1)}."
    return f"{rates}; EMD {decimal(layer.emd)}, {floor_words(layer)}; matched L1 {decimal(layer.matched_l1)}."


def _listed(names: list[str], one: str, many: str) -> str:
    if len(names) == 1:
        return f"{one} {names[0]}"
    shown = names[:4]
    rest = len(names) - len(shown)
    return f"{many} {', '.join(shown)}" + (f" and {rest} more" if rest else "")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)

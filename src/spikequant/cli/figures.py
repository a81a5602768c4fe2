"""The figures of a comparison as table rows and sentences, the same in every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spikequant.cli.tables import Table

if TYPE_CHECKING:
    from spikequant.analyse import Comparison, Side
    from spikequant.quantize import QuantizeReport, VerifyReport

REAL = "float32"


def figures_table(comparisons: Mapping[str, Comparison]) -> Table:
    """One column per network, the real one first; one row per figure."""
    first = next(iter(comparisons.values()))
    columns = [_real_cells(first), *(_cells(c) for c in comparisons.values())]
    rows = tuple((name, *(column[name] for column in columns)) for name in columns[0])
    return Table(("", REAL, *comparisons), rows)


def layer_table(comparison: Comparison) -> Table:
    """How every layer fires in both networks."""
    header = ("layer", "neurons", "rate", "was", "EMD", "floor", "dead", "silent")
    rows = tuple(
        (layer.layer, f"{layer.neurons:,}", f"{layer.rate:.4f}", f"{layer.reference_rate:.4f}", f"{layer.emd:.4f}",
         number(layer.floor), f"{layer.dead:.1%}", f"{layer.silent:.1%}")
        for layer in comparison.layers
    )  # fmt: skip
    return Table(header, rows)


def headline(comparison: Comparison) -> str:
    """Accuracy and memory of both networks in one sentence."""
    real, small = comparison.reference, comparison.quantized
    smaller = (real.flash_bytes + real.ram_bytes) / (small.flash_bytes + small.ram_bytes)
    return (
        f"{small.accuracy:.2%} of {comparison.samples:,} test samples right instead of {real.accuracy:.2%} "
        f"({comparison.difference:+.2f} ± {comparison.interval:.2f} points, 95 %), {smaller:.1f} times smaller."
    )


def what_was_quantized(report: QuantizeReport) -> str:
    """Roles with their bits, and how many layers each has: ``weight 4 bits (2 layers), ...``.

    Only what the plan asked for; what is kept wide beside it is in the table of the report.
    """
    found: dict[tuple[str, int], int] = {}
    for row in report.quantized:
        assert row.bits is not None
        found[row.role, row.bits] = found.get((row.role, row.bits), 0) + 1
    parts = [f"{role} {count(bits, 'bit')} ({count(n, 'layer')})" for (role, bits), n in found.items()]
    return ", ".join(parts)


def equality(verified: VerifyReport) -> str:
    """What `verify` compared, as a sentence."""
    outcome = "no difference" if not verified.differences else f"{verified.differences:,} differences"
    return (
        f"Integers against simulation: {verified.neuron_steps:,} neuron-steps, {verified.spikes:,} spikes, "
        f"{verified.states_compared:,} states, {outcome}."
    )


def near_chance(comparison: Comparison, classes: int) -> list[str]:
    """A warning if the real network itself is hardly better than guessing."""
    accuracy = comparison.reference.accuracy
    if accuracy > 1.5 / classes:
        return []
    return [
        f"warning: the real network is right on {accuracy:.1%} of the test samples, which is guessing; "
        "was it trained? Give its weights with --weights"
    ]


def count(number: int, thing: str) -> str:
    """A number with its thing, one or several.

    >>> count(1, "bit"), count(4, "layer")
    ('1 bit', '4 layers')
    """
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def kib(size_bytes: float) -> str:
    """Bytes for reading: ``312 B``, ``6.5 KiB``.

    >>> kib(312), kib(6656)
    ('312 B', '6.5 KiB')
    """
    return f"{size_bytes:,.0f} B" if size_bytes < 1024 else f"{size_bytes / 1024:,.1f} KiB"


def number(value: float) -> str:
    """Four decimals; a dash where there is no number.

    >>> number(0.25), number(float("nan"))
    ('0.2500', '-')
    """
    return "-" if value != value else f"{value:.4f}"


def _real_cells(comparison: Comparison) -> dict[str, str]:
    return {
        "accuracy": f"{comparison.reference.accuracy:.2%}",
        "change, points": "",
        "EMD of rates": "",
        "  floor, halves": number(comparison.floor),
        **_seed_floor(comparison),
        "dead neurons": f"{comparison.reference_dead:.1%}",
        **_costs(comparison.reference),
    }


def _cells(comparison: Comparison) -> dict[str, str]:
    return {
        "accuracy": f"{comparison.quantized.accuracy:.2%}",
        "change, points": f"{comparison.difference:+.2f} ± {comparison.interval:.2f}",
        "EMD of rates": number(comparison.emd),
        "  floor, halves": "",
        **dict.fromkeys(_seed_floor(comparison), ""),
        "dead neurons": f"{comparison.dead:.1%}",
        **_costs(comparison.quantized),
    }


def _seed_floor(comparison: Comparison) -> dict[str, str]:
    return {} if comparison.seed_floor is None else {"  floor, seeds": number(comparison.seed_floor)}


def _costs(side: Side) -> dict[str, str]:
    return {
        "flash": kib(side.flash_bytes),
        "RAM": kib(side.ram_bytes),
        "flash / RAM as C": "" if side.in_c is None else f"{kib(side.in_c.flash)} / {kib(side.in_c.ram)}",
        "SynOps": f"{side.effective_acs + side.effective_macs:,.0f}",
    }

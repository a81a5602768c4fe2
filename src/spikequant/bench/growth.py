"""How the cost of a training step grows: with steps, batch, width and bits, ours beside plain float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spikequant.bench.rows import TRAINING, Result, measure
from spikequant.bench.workloads import Workload, conv_of_width

PEERS = ("SpikingJelly, multi-step",)


@dataclass(frozen=True)
class Point:
    """Medians in milliseconds of a training step by row, at one value of what was varied."""

    varied: str
    value: int
    milliseconds: dict[str, float]


def growth(
    workload: Workload,
    *,
    steps: Sequence[int],
    batches: Sequence[int],
    widths: Sequence[int] = (),
    bits: Sequence[int],
    rounds: int,
    said: Callable[[str], None],
) -> list[Point]:
    """One thing varied at a time, the others as in the workload; `widths` are channels of the convolutional one."""
    points = []
    for varied, values in (("T", steps), ("batch", batches), ("width", widths), ("bits", bits)):
        for value in values:
            found = measure(
                conv_of_width(value) if varied == "width" else workload,
                rounds=rounds,
                only=lambda s: s.is_ours or s.name in PEERS,
                said=said,
                inference=False,
                steps=value if varied == "T" else None,
                batch=value if varied == "batch" else None,
                bits=value if varied == "bits" else 8,
            )
            points.append(Point(varied, value, _medians(found)))
    return points


def _medians(result: Result) -> dict[str, float]:
    """By row, under names without the bits."""
    named = {row.name.split(", W")[0] + (", quantized" if ", W" in row.name else ""): row for row in result.rows}
    return {name: 1e3 * row.times[TRAINING].median for name, row in named.items()}

"""What each role tolerates alone: the table of Q-SpiNN's first step, and the space that it leaves.

Source: R. V. W. Putra, M. Shafique, "Q-SpiNN: A Framework for Quantizing Spiking Neural Networks", IJCNN 2021: every
parameter is quantized by itself for its significance, then settings inside the tolerances are combined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spikequant.explore.factors import Factor, Option, label, listed
from spikequant.explore.records import Measured
from spikequant.explore.selection import keeps
from spikequant.explore.space import Space
from spikequant.explore.study import Trial

SCHEME = "scheme"


@dataclass(frozen=True, kw_only=True)
class ToleranceRow:
    """One option of one factor, everything else real.

    Attributes:
        factor: ``pattern:role``, or a setting of the whole network.
        option: its label.
        index: its number in the factor.
        accuracy: share of the samples that it saw; NaN where there is no such network.
        drop: points of accuracy lost against the real network.
        memory_bytes: flash and RAM.
        kept: whether it keeps the target alone, so that combinations may have it.
        stopped_early: it was given up before it saw all samples, so that accuracy and drop are of some only.
    """

    factor: str
    option: str
    index: int
    accuracy: float
    drop: float
    memory_bytes: float
    kept: bool
    stopped_early: bool = False


@dataclass(frozen=True)
class Tolerance:
    """The table: every option of every factor that varies, alone."""

    rows: tuple[ToleranceRow, ...]

    def kept(self) -> dict[str, tuple[int, ...]]:
        """The options that combinations may have, by factor."""
        found: dict[str, list[int]] = {}
        for row in self.rows:
            if row.kept:
                found.setdefault(row.factor, []).append(row.index)
        return {factor: tuple(indices) for factor, indices in found.items()}

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON-able; a figure that there is none of is None."""
        return [{k: None if v != v else v for k, v in asdict(row).items()} for row in self.rows]

    def __str__(self) -> str:
        header = ("", "role alone", "option", "accuracy", "drop, points", "bytes")
        lines = [header, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
        return "\n".join(
            "  ".join(c.rjust(w) if k > 2 else c.ljust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        )


def alone_space(space: Space) -> Space:
    """Every option of every factor that varies as a candidate of its own, all other roles real.

    The scheme is the first of the space; an option that leaves its role real is left out, it is the real network.
    """
    labels, options = [], []
    for factor, index in _alone(space):
        labels.append(f"{factor.name}: {label(factor.options[index])}")
        options.append({**_base(space), **factor.options[index]})
    return Space((listed("alone", options, labels),))


def tolerances(space: Space, trials: Sequence[Trial], reference: Measured, target_accuracy: float) -> Tolerance:
    """The table out of the trials of `alone_space`.

    A factor none of whose options keeps the target keeps the one of highest accuracy: the others may make up for it
    in training.  Those that were given up early count only where all were, by the samples that they saw.
    """
    by_key = {trial.candidate.key: trial.measured for trial in trials}
    rows = []
    for factor in space.varied:
        if factor.name != SCHEME:
            rows += _factor_rows(space, factor, by_key, reference, target_accuracy)
    return Tolerance(tuple(rows))


def _factor_rows(
    space: Space, factor: Factor, by_key: dict[str, Measured], reference: Measured, target: float
) -> list[ToleranceRow]:
    found = []
    for index, option in enumerate(factor.options):
        measured = reference if not option else by_key.get(Space.of([_base(space), option]).key)
        if measured is not None:
            found.append((index, option, measured))
    kept = _kept([m for _, _, m in found], target)
    return [
        ToleranceRow(
            factor=factor.name,
            option=label(option),
            index=index,
            accuracy=m.accuracy,
            drop=100 * (reference.accuracy - m.accuracy),
            memory_bytes=m.flash_bytes + m.ram_bytes,
            kept=not option or keeps_target,
            stopped_early=m.stopped_early,
        )
        for (index, option, m), keeps_target in zip(found, kept, strict=True)
    ]


def _kept(measured: Sequence[Measured], target: float) -> list[bool]:
    good = [keeps(m, target) for m in measured]
    built = [m for m in measured if not math.isnan(m.accuracy)]
    if any(good) or not built:
        return good
    ranked = [m for m in built if not m.stopped_early] or built
    best = max(m.accuracy for m in ranked)
    return [m in ranked and m.accuracy == best for m in measured]


def _alone(space: Space) -> list[tuple[Factor, int]]:
    varied = [factor for factor in space.varied if factor.name != SCHEME]
    return [(factor, k) for factor in varied for k, option in enumerate(factor.options) if option]


def _base(space: Space) -> Option:
    return next((factor.options[0] for factor in space.factors if factor.name == SCHEME), {})


def _cells(row: ToleranceRow) -> tuple[str, ...]:
    if row.accuracy != row.accuracy:
        figures = ("-",) * 3
    elif row.stopped_early:
        figures = ("given up", "-", f"{row.memory_bytes:,.0f}")
    else:
        figures = (f"{100 * row.accuracy:.2f} %", f"{row.drop:+.2f}", f"{row.memory_bytes:,.0f}")
    return ("+" if row.kept else "-", row.factor, row.option, *figures)

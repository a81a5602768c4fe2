"""The whole benchmark: every workload, the ceilings, the growth of the cost; and what is written of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from spikequant.bench.ceilings import Ceilings, Needs, ceilings, needs
from spikequant.bench.drawing import drawings
from spikequant.bench.growth import Point, growth
from spikequant.bench.page import Table, ceiling_table, growth_table, html, markdown, result_table
from spikequant.bench.rows import Result, measure
from spikequant.bench.workloads import WORKLOADS
from spikequant.law.errors import DataError

QUICK_STEPS, QUICK_BATCH, QUICK_ROUNDS = 4, 8, 3
TITLE = "Training and running a quantized network, beside other libraries"


@dataclass(frozen=True)
class Session:
    """What one run of the benchmark found."""

    results: tuple[Result, ...]
    needs: tuple[Needs, ...]
    machine: Ceilings
    points: tuple[Point, ...]
    words: tuple[str, ...]
    facts: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"facts": self.facts, "words": list(self.words), "machine": asdict(self.machine),
                "results": [asdict(r) for r in self.results], "needs": [asdict(n) for n in self.needs],
                "growth": [asdict(p) for p in self.points]}  # fmt: skip

    @property
    def machine_line(self) -> str:
        """Machine and versions as a sentence."""
        return "; ".join(f"{name} {value}" for name, value in self.facts.items() if value) + "."

    def markdown(self) -> str:
        """The page as Markdown."""
        parts = [
            f"# {TITLE}",
            *self.words,
            self.machine_line,
            *(f"## {heading}\n\n{markdown(table)}" for heading, table in self.tables()),
        ]
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """The page as HTML, with the growth drawn."""
        return html(
            TITLE, (*self.words, self.machine_line), self.tables(), drawings(self.points) if self.points else ()
        )

    def tables(self) -> list[tuple[str, Table]]:
        """Heading and table of each part."""
        parts: list[tuple[str, Table]] = [
            (f"{r.workload}: {r.title}, T = {r.shape[0]}, batch {r.shape[1]}", result_table(r)) for r in self.results
        ]
        found = list(zip(self.results, self.needs, strict=True))
        parts.append(("Share of what the machine can do (inference)", ceiling_table(found, self.machine)))
        return parts + ([("Growth of a training step (conv)", growth_table(self.points))] if self.points else [])


def run(
    *,
    names: Sequence[str] = tuple(WORKLOADS),
    bits: int = 8,
    rounds: int = 7,
    quick: bool = False,
    with_growth: bool = True,
    with_peaks: bool = True,
    commit: str = "",
    said: Callable[[str], None] = lambda text: None,
) -> Session:
    """Measure.

    Args:
        names: workloads.
        bits: of weights and of membranes.
        rounds: how often every row is timed.
        with_growth: measure how the cost grows with T, batch and bits, too.
        with_peaks: measure the memory of a training step, too (a process for every row).
        quick: few steps, small batches, two workloads, no growth and no memory: about a minute.
        commit: of the tree, for the page.
        said: is told what is going on.

    Raises:
        DataError: an unknown workload.
    """
    unknown = sorted(set(names) - set(WORKLOADS))
    if unknown:
        raise DataError(f"unknown workload {unknown[0]!r}; expected some of {', '.join(WORKLOADS)}")
    if quick:
        chosen = [WORKLOADS[name] for name in names if name != "sew"]
        options: dict[str, Any] = {"rounds": QUICK_ROUNDS, "steps": QUICK_STEPS, "batch": QUICK_BATCH}
    else:
        chosen, options = [WORKLOADS[name] for name in names], {"rounds": rounds, "with_peaks": with_peaks}
    results = tuple(measure(workload, bits=bits, said=said, **options) for workload in chosen)
    points: list[Point] = []
    if with_growth and not quick:
        points = growth(
            WORKLOADS["conv"],
            steps=(1, 4, 16, 64, 256),
            batches=(1, 8, 32, 128),
            widths=(8, 16, 32, 64),
            bits=(2, 4, 8),
            rounds=3,
            said=said,
        )
    needed = tuple(needs(w, w.input(steps=r.shape[0], batch=r.shape[1])) for w, r in zip(chosen, results, strict=True))
    machine = ceilings()
    return Session(results, needed, machine, tuple(points), _words(results, machine, quick), facts_here(commit))


def facts_here(commit: str = "") -> dict[str, str]:
    """Machine and versions."""
    found = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}", "commit": commit}
    for package in ("torch", "spikingjelly", "snntorch", "norse", "sinabs", "brevitas"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "threads": str(torch.get_num_threads()), "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "all")}


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return " ".join(name for name in known if name in flags)


INTRODUCTION = (
    "One network in several libraries, with the same weights and inputs: v <- v / 2 + x, fires at 1, resets to 0. All "
    "rows take turns in one process; medians with least and most. '/ fp32' is the ratio to the fastest other library "
    "of that table in float32, '/ bf16' to the fastest under autocast to bfloat16.",
    "Firing rates are those of the layers of neurons in order: a row whose rates differ does other work.",
    "A row whose first call takes longer than ten seconds is timed by that call alone and says 'once'.",
    "The share of the ceiling is that of dense float32 work; byte products, and integers that skip what is silent, "
    "can pass 100 %.",
)


def _words(results: Sequence[Result], machine: Ceilings, quick: bool) -> tuple[str, ...]:
    words = list(INTRODUCTION)
    if quick:
        words.append("A quick run: few steps and small batches, where the fixed cost of calls counts most.")
    for result in results:
        if result.missing:
            words.append(f"{result.workload}: not installed, so without rows: {', '.join(result.missing)}.")
        words += [f"{result.workload}: {name} failed: {why}" for name, why in result.failed.items()]
    ceiling = (
        f"copy {machine.bytes_per_second / 1e9:.1f} GB/s, float32 product {machine.macs_per_second / 1e9:.0f} GMAC/s"
    )
    return (*words, f"Measured ceilings: {ceiling}.")

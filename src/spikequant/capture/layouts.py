"""Layouts of time and batch in the user's code, and the names of the operations that keep or change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spikequant.capture.graph import Reduction

Layout = Literal[
    "static",  # [N, ...], the same at every step
    "ones",  # [1, N, ...]
    "batch_ones",  # [N, 1, ...]
    "step",  # [N, ...] of one step
    "time",  # [T, N, ...]
    "merged",  # [T * N, ...]
    "batch_time",  # [N, T, ...]
    "batch_merged",  # [N * T, ...]
]
GROUPS: dict[str, tuple[Layout, ...]] = {
    "static": ("static", "ones", "time", "batch_ones", "batch_time"),
    "ones": ("ones", "static", "time"),
    "step": ("step",),
    "time": ("time", "merged"),
    "merged": ("merged", "time"),
    "batch_ones": ("batch_ones", "static", "batch_time"),
    "batch_time": ("batch_time", "batch_merged"),
    "batch_merged": ("batch_merged", "batch_time"),
}
RESHAPES = {"flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "repeat", "expand", "expand_as"}
ADDS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
MULTIPLIES = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", "logical_and", "__and__"}
DIVIDES = {"div", "div_", "__truediv__", "true_divide", "divide"}
REDUCTIONS: dict[str, Reduction] = {"sum": "sum", "mean": "mean", "amax": "max", "max": "max"}
READS = {*RESHAPES, *REDUCTIONS, *MULTIPLIES, *DIVIDES, "__getitem__", "select", "stack"}
"""What may follow a constant factor: it belongs to the reading of the output."""
POOLS = {"max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "_max_pool2d", "_max_pool1d", "boolean_dispatch"}


@dataclass(frozen=True)
class Val:
    """A value in the user's code: which node, in which layout of time and batch, reduced or not."""

    node: str
    layout: Layout
    features: tuple[int, ...]
    reduction: Reduction | None = None
    factor: float = 1.0
    sums: bool = False
    negated: bool = False
    delay: int = 0

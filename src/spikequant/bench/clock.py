"""Times of several calls that take turns, so that other work on the machine meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SLOW_SECONDS = 10.0
"""A call whose first run takes longer is not repeated: that run counts."""


@dataclass(frozen=True)
class Times:
    """Seconds of one call: median, least and most, over `rounds`."""

    median: float
    least: float
    most: float
    rounds: int


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    said: Callable[[str], None] = lambda text: None,
) -> dict[str, Times]:
    """Time every call `rounds` times, taking turns; the first `warm_up` rounds do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warm_up + rounds):
        for name, call in calls.items():
            if seconds[name] and seconds[name][0] > SLOW_SECONDS:
                continue
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
        said(f"round {number + 1} of {warm_up + rounds}")
    counted = {name: found[warm_up:] or found for name, found in seconds.items()}
    return {n: Times(statistics.median(f), min(f), max(f), len(f)) for n, f in counted.items()}

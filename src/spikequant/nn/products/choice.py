"""The fastest of the proven paths, timed once per shape and machine, and kept on disk.

Every path gives the same bits, so that what a clock decides changes no result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikequant.law.atomic import write_text
from spikequant.law.errors import SpikequantError
from spikequant.readers.native import cache_folder, machine

VERSION = 2
ROUNDS = 5
HOPELESS = 2.0
AGAIN = 100
"""Calls after which the density of a shape that settled on floats is looked at again."""
_chosen: dict[str, dict[str, float]] = {}
_settled: dict[str, tuple[str, int]] = {}


def fastest(key: str, candidates: Mapping[str, Callable[[], Tensor | None]]) -> str:
    """The name of the fastest candidate for `key`; timed if it never was, or if others were timed then.

    A candidate that gives None (its operands are not what the proof is about) does not count.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    times = _known().get(key)
    if times is None or set(times) != set(candidates):
        times = _timed(candidates)
        _known()[key] = times
        _store()
    return min(candidates, key=lambda name: times[name])


def settled(shape: str) -> str:
    """The path in floats that won for this shape, whatever its density; asked anew every `AGAIN`-th time."""
    name, calls = _settled.get(shape, ("", 0))
    if not name:
        return ""
    _settled[shape] = (name, calls + 1)
    return name if (calls + 1) % AGAIN else ""


def settle(shape: str, name: str) -> None:
    """Floats won for this shape: its inputs need not be packed to know their density."""
    _settled.setdefault(shape, (name, 0))


def timings(key: str) -> dict[str, float]:
    """Seconds per path as they were measured for `key`; empty if nothing was."""
    return dict(_known().get(key, {}))


def forget() -> None:
    """Forget every measurement, on disk, too."""
    _known().clear()
    _settled.clear()
    with contextlib.suppress(OSError, SpikequantError):
        _file().unlink(missing_ok=True)


def _timed(candidates: Mapping[str, Callable[[], Tensor | None]]) -> dict[str, float]:
    """The least time of each over some rounds, in turns, so that a busy moment meets all; infinite without result."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(candidates, float("inf"))
    running = dict(candidates)
    for round_number in range(ROUNDS):
        for name, run in list(running.items()):
            started = clock()
            result = run()
            taken = clock() - started
            if result is None:
                del running[name]
            elif round_number:
                best[name] = min(best[name], taken)
        least = min(best.values())
        running = {name: run for name, run in running.items() if not round_number or best[name] <= HOPELESS * least}
    return best


@cache
def _machine_key(process: int) -> str:
    facts = f"{VERSION} {torch.__version__} {machine()} {os.environ.get('ONEDNN_MAX_CPU_ISA', '')}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _file() -> Path:
    return cache_folder() / f"paths-{VERSION}-{_machine_key(os.getpid())}.json"


def _known() -> dict[str, dict[str, float]]:
    if not _chosen:
        _chosen.update(_read())
        _chosen.setdefault("", {})
    return _chosen


def _read() -> dict[str, dict[str, float]]:
    """What earlier processes measured; nothing, if the file is absent or broken."""
    try:
        found: Any = json.loads(_file().read_text(encoding="utf-8"))
        return {str(key): {str(n): float(t) for n, t in times.items()} for key, times in found.items()}
    except (OSError, ValueError, AttributeError, TypeError, SpikequantError):
        return {}


def _store() -> None:
    """Merge with what other processes wrote; a folder that cannot be written costs only the next process its time."""
    merged = {**_read(), **{key: times for key, times in _chosen.items() if key}}
    with contextlib.suppress(OSError, SpikequantError):
        write_text(_file(), json.dumps(merged, sort_keys=True))

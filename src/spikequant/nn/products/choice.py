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

VERSION = 1
ROUNDS = 3
HOPELESS = 3.0
_chosen: dict[str, dict[str, float]] = {}


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


def timings(key: str) -> dict[str, float]:
    """Seconds per path as they were measured for `key`; empty if nothing was."""
    return dict(_known().get(key, {}))


def forget() -> None:
    """Forget every measurement, on disk, too."""
    _known().clear()
    with contextlib.suppress(OSError, SpikequantError):
        _file().unlink(missing_ok=True)


def _timed(candidates: Mapping[str, Callable[[], Tensor | None]]) -> dict[str, float]:
    best: dict[str, float] = {}
    for name, run in candidates.items():
        least = float("inf")
        for round_number in range(ROUNDS):
            started = time.perf_counter()
            result = run()
            taken = time.perf_counter() - started
            if result is None:
                break
            del result
            least = min(least, taken) if round_number else least
            if round_number and best and least > HOPELESS * min(best.values()):
                break
        best[name] = least
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

"""Damages files of a format one after the other, loads each, and counts how it ended.

python -m tests.hostile.attack FORMAT FIRST_SEED CASES   prints one JSON object; the exit code is 1 if a case ended
in any way but success with sound content or the format's own error.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

from tests.hostile.formats import FORMATS, Case, Format


def attack(name: str, first: int, cases: int, *, memory: bool = False) -> dict[str, Any]:
    """The tally of `cases` cases."""
    target, ends, kinds, wrong = FORMATS[name], Counter(), Counter(), []
    slowest, most = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, first + cases):
            case = target.damaged(random.Random(f"{name} {seed}"))
            path = Path(folder, f"case{case.suffix or target.suffix}")
            path.write_bytes(case.content)
            if memory:
                tracemalloc.start()
            started = time.perf_counter()
            end, words = outcome(target, case, path)
            slowest = max(slowest, time.perf_counter() - started)
            if memory:
                most = max(most, tracemalloc.get_traced_memory()[1] - 2 * len(case.content))
                tracemalloc.stop()
            ends[end] += 1
            kinds[case.kind.split(",")[0]] += 1
            if end == "wrong":
                wrong.append(f"seed {seed} ({case.kind}): {words}")
    return {
        "format": name, "cases": cases, "first_seed": first, "ends": dict(ends), "kinds": len(kinds),
        "slowest_s": round(slowest, 3), "most_bytes": most, "wrong": wrong[:20],
    }  # fmt: skip


def outcome(target: Format, case: Case, path: Path) -> tuple[str, str]:
    """How a load ended: read, refused, or wrong with the words."""
    try:
        found = target.load(path)
    except target.errors as error:
        words = str(error)
        named = target.load.__name__ == "load_nir_graph" or path.name in words
        return ("refused", words) if len(words) > 20 and named else ("wrong", f"says only {words!r}")
    except BaseException as error:
        return "wrong", f"{type(error).__name__}: {str(error)[:200]}"
    if case.unchanged is not None and found is not None and found != case.unchanged:
        return "wrong", "was read as another network"
    return "read", ""


if __name__ == "__main__":
    result = attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), memory="--memory" in sys.argv)
    print(json.dumps(result))
    sys.exit(1 if result["wrong"] else 0)

"""Made things for tests of a study: a space, an evaluator whose results are a formula, and a worker process."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikequant.explore.records import Candidate, Measured
from spikequant.explore.space import Space

RECORD: dict[str, Any] = {
    "rules": [
        {
            "match": "*",
            "weight": {
                "bits": [1, 2, 3, 4, 6, 8],
                "quantizer": ["uniform", "lsq"],
                "clipping": ["max", "mse"],
            },
            "membrane": {"bits": [2, 4, 6, 8], "rounding": ["floor", "half_up", "stochastic"]},
            "leak": {"form": ["multiply", "shift"], "bits": [4, 8]},
        }
    ]
}


def space() -> Space:
    return Space.from_dict(RECORD)


def figures(candidate: Candidate) -> Measured:
    """A formula of the candidate: more bits, more accuracy and more memory; a little of its own for each."""
    bits = float(candidate.settings.get("*:weight.bits", 1))
    membrane = float(candidate.settings.get("*:membrane.bits", 32))
    own = int(hashlib.sha256(candidate.to_json().encode()).hexdigest()[:6], 16) / 0xFFFFFF
    refused = own > 0.95
    nan = float("nan")
    return Measured(
        accuracy=nan if refused else round(1 - 0.5**bits - 0.5**membrane - 0.02 * own, 6),
        samples=0 if refused else 100,
        flash_bytes=nan if refused else 100 * bits,
        ram_bytes=nan if refused else 10 * membrane,
        energy_pj=nan if refused else bits * membrane + own,
        emd=nan if refused else 0.1 * own,
        dead=nan if refused else 0.0,
        stopped_early=False,
        seconds=0.0,
        scheme="ptq",
        refused="made so" if refused else "",
    )


class Formula:
    """Measures by `figures`; writes every measurement that was finished to a file, and takes `seconds` for it."""

    def __init__(self, record: Path | None = None, seconds: float = 0.0) -> None:
        self.record, self.seconds = record, seconds

    def measure(self, candidates: Sequence[Candidate]) -> list[Measured]:
        found = []
        for candidate in candidates:
            time.sleep(self.seconds)
            found.append(figures(candidate))
            if self.record is not None:
                with self.record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([os.getpid(), candidate.key]) + "\n")
        return found


def main() -> None:
    """A worker: folder or URL, sampler, trials, seconds, record, and whether the study is shared."""
    from spikequant.explore.study import run_study

    asked = json.loads(sys.argv[1])
    evaluator = Formula(Path(asked["record"]) if asked.get("record") else None, asked.get("seconds", 0.0))

    def told(entry: Any) -> None:
        sys.stdout.write(f"{entry.number}\n")  # acknowledged
        sys.stdout.flush()

    run_study(
        space(), evaluator, sampler=asked["sampler"], trials=asked["trials"], seed=asked.get("seed", 0),
        batch=asked.get("batch", 8), chunk=1, folder=Path(asked["folder"]) if asked.get("folder") else None,
        storage=asked.get("storage"), told=told, grace=asked.get("grace", 60.0), settle=asked.get("settle", 2.0),
    )  # fmt: skip


if __name__ == "__main__":
    main()

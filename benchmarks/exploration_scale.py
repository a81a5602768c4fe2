"""What a trial costs besides its evaluation: proposals, journal, database; the figures of docs/guides/scale.md.

    python benchmarks/exploration_scale.py [--storage postgresql+psycopg2://...]

Candidates are measured by a formula that takes no time, so all that is counted is the study itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.explore.made import Formula, space

from spikequant.explore.study import run_study


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--storage")
    parser.add_argument("--trials", type=int, default=200)
    asked = parser.parse_args()
    for sampler in ("random", "nsga2", "tpe"):
        with tempfile.TemporaryDirectory() as folder:
            trials = asked.trials if sampler != "tpe" else asked.trials // 2
            started = time.perf_counter()
            run_study(space(), Formula(), sampler=sampler, trials=trials, folder=Path(folder))
            took = (time.perf_counter() - started) / trials
            size = (Path(folder) / "journal.log").stat().st_size / trials
            print(f"journal, {sampler}, {trials} trials: {1000 * took:.1f} ms and {size:.0f} bytes a trial", flush=True)
    if asked.storage:
        started = time.perf_counter()
        run_study(space(), Formula(), sampler="random", trials=asked.trials, storage=asked.storage)
        took = (time.perf_counter() - started) / asked.trials
        print(f"database, random, {asked.trials} trials: {1000 * took:.1f} ms a trial", flush=True)


if __name__ == "__main__":
    main()

"""A study whose process is killed again and again: run as a program, it prints what an observer can say about it.

    python -m tests.explore.kills '{"folder": ..., "kills": 10, "trials": 200, "most_seconds": 0.3, "seed": 0}'

Each life is a fork of this process, which has everything imported, so that a kill costs a fraction of a second.
With ``"storage": URL`` the trials are kept in a database and what the dead one was at is taken over from it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.explore.made import figures, space

from spikequant.explore.ledger import Entry
from spikequant.explore.records import Candidate, Measured
from spikequant.explore.study import run_study


class Witness:
    """Measures by formula and writes down, each in one call of the system, what was measured and what acknowledged."""

    def __init__(self, record: Path) -> None:
        self.handle = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *words: object) -> None:
        os.write(self.handle, (json.dumps(words) + "\n").encode())

    def measure(self, candidates: Sequence[Candidate]) -> list[Measured]:
        found = []
        for candidate in candidates:
            time.sleep(0.001)
            self.write("measured", candidate.key)
            found.append(figures(candidate))
        return found

    def told(self, entry: Entry) -> None:
        self.write("acknowledged", entry.number, space().candidate(entry.point).key)


def life(asked: dict[str, Any]) -> list[Any]:
    witness = Witness(Path(asked["folder"]) / "witness")
    kept: dict[str, Any] = {"folder": Path(asked["folder"]) / "study"}
    if "storage" in asked:
        kept = {"storage": asked["storage"], "grace": 0.3, "settle": 0.1}
    trials = run_study(
        space(), witness, sampler=asked["sampler"], trials=asked["trials"], batch=8, chunk=1, told=witness.told,
        seed=5, wanted=("accuracy", "flash_bytes"), **kept,
    )  # fmt: skip
    return [[t.number, t.candidate.key, t.measured.accuracy if not t.was_refused else None] for t in trials]


def main() -> None:
    asked = json.loads(sys.argv[1])
    folder, draw = Path(asked["folder"]), random.Random(asked["seed"])
    folder.mkdir(parents=True, exist_ok=True)
    killed = 0
    while killed < asked["kills"]:
        child = os.fork()
        if child == 0:
            life(asked)
            os._exit(0)
        time.sleep(draw.uniform(0, asked["most_seconds"]))
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    trials = life(asked)
    lines = [json.loads(line) for line in (folder / "witness").read_text().splitlines()]
    print(json.dumps({"killed": killed, "trials": trials, "witness": lines}))


if __name__ == "__main__":
    main()

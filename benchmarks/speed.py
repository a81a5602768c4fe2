"""Training and running a quantized network beside other libraries: writes speed.md, speed.html, speed.json here.

python benchmarks/speed.py [--quick] [--rounds 7] [--suffix NAME]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from spikequant.bench import WORKLOADS, run

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    parser.add_argument("--no-growth", action="store_true")
    parser.add_argument("--no-peaks", action="store_true")
    parser.add_argument("--suffix", default="", help="part of the file name, for another machine or instruction set")
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    found = run(
        names=tuple(given.workload or WORKLOADS), rounds=given.rounds, quick=given.quick, commit=commit.strip(),
        with_growth=not given.no_growth, with_peaks=not given.no_peaks,
        said=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    name = f"speed{'-' + given.suffix if given.suffix else ''}"
    command = f"Command: `python benchmarks/speed.py {' '.join(sys.argv[1:])}`."
    page = "[speed_growth.md](speed_growth.md)" if (HERE / "speed_growth.md").exists() else "`speed_growth.py`"
    beside = f"How a step grows with T, batch, width and bits, and its memory: {page}."
    (HERE / f"{name}.md").write_text(found.markdown() + f"\n{beside}\n\n{command}\n", encoding="utf-8")
    (HERE / f"{name}.html").write_text(found.html(), encoding="utf-8")
    (HERE / f"{name}.json").write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

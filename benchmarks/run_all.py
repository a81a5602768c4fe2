"""`make bench`: the benchmarks of speed in turn, then those of accuracy; each writes or prints its own table.

Speed takes a quarter of an hour and wants a machine that does nothing else. `accuracy.py` takes hours on two cores and
resumes; it runs only where the data are. What is not here wants a paper's data or a night: each page of this folder
names the command that made it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPEED = (
    ("import_time.py",),
    ("training_step.py",),
    ("product_paths.py",),
    ("fused_neuron.py", "--write"),
    ("speed.py", "--no-growth", "--no-peaks"),
    ("speed_growth.py", "growth"),
    ("speed_growth.py", "memory"),
    ("speed_avx2.py",),
)


def main() -> None:
    """Run them; the first failure stops."""
    scripts = [*SPEED, *([("accuracy.py",)] if os.environ.get("SPIKEQUANT_DATA") else [])]
    for name, *options in scripts:
        print("##", name, *options, flush=True)
        subprocess.run([sys.executable, str(HERE / name), *options], check=True)
    if len(scripts) == len(SPEED):
        print("accuracy.py skipped: set SPIKEQUANT_DATA to the folder with mnist and fashion-mnist")


if __name__ == "__main__":
    main()

"""`make bench`: every benchmark in turn; each writes or prints its own table.

`accuracy.py` takes hours on two cores and resumes; it runs only where the data are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
QUICK = ("import_time.py", "training_step.py", "speed.py")


def main() -> None:
    """Run them; the first failure stops."""
    scripts = [*QUICK, *(["accuracy.py"] if os.environ.get("SPIKEQUANT_DATA") else [])]
    for name in scripts:
        print(f"## {name}", flush=True)
        subprocess.run([sys.executable, str(HERE / name)], check=True)
    if len(scripts) == len(QUICK):
        print("accuracy.py skipped: set SPIKEQUANT_DATA to the folder with mnist and fashion-mnist")


if __name__ == "__main__":
    main()

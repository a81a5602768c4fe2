"""`import spikequant` against `import torch`, each in fresh interpreters, interleaved."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(statement: str) -> float:
    """Wall time of one interpreter that runs `statement`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    statements = {"import torch": [], "import spikequant": [], "import spikequant as sq; sq.quantize_; sq.Plan": []}
    for _ in range(7):
        for statement, times in statements.items():
            times.append(seconds(statement))
    base = statistics.median(statements["import torch"])
    print("| statement | median s | min | max | ratio |\n| --- | --- | --- | --- | --- |")
    for statement, times in statements.items():
        middle = statistics.median(times)
        print(f"| `{statement}` | {middle:.2f} | {min(times):.2f} | {max(times):.2f} | {middle / base:.2f} |")


if __name__ == "__main__":
    main()

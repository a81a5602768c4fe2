"""Peak memory of one training step, in a process of its own: what the step adds to what was there before it."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from pathlib import Path

STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(workload: str, subject: str, bits: int, steps: int, batch: int) -> int | None:
    """Bytes that a training step adds at its peak; None where the system does not tell (not Linux)."""
    if not STATUS.exists() or not RESET_PEAK.exists():
        return None
    words = [sys.executable, "-m", "spikequant.bench.peak", workload, subject, str(bits), str(steps), str(batch)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    return int(lines[-1]) if done.returncode == 0 and lines else None


def _kib(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def main(workload: str, subject: str, bits: str, steps: str, batch: str) -> None:
    """Build, step once on two samples, then measure one step on the whole batch."""
    from spikequant.bench import ours, rows
    from spikequant.bench.subjects import subjects
    from spikequant.bench.workloads import WORKLOADS, weights_of

    load = WORKLOADS[workload]
    x = load.input(steps=int(steps), batch=int(batch))
    weights = weights_of(load, ours.float_parts(), x[:, :2])
    chosen = next(s for s in subjects(load, int(bits))[0] if s.name == subject)
    net = chosen.make(weights, x)
    target = rows.targets(x)
    rows.training(chosen, net, x[:, :2], target[:2])()
    step = rows.training(chosen, net, x, target)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _kib("VmRSS")
    RESET_PEAK.write_text("5")
    step()
    sys.stdout.write(f"{(_kib('VmHWM') - before) * 1024}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A training step with AVX2 alone, beside every library's quantized training: writes speed_avx2.md here.

python benchmarks/speed_avx2.py [--rounds 3] [--workload conv]

The measuring process is started with oneDNN and torch limited to AVX2 and with a C compiler told to use no more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from spikequant.bench import WORKLOADS, measure
from spikequant.bench.page import markdown
from spikequant.bench.rows import TRAINING, Result
from spikequant.bench.session import facts_here
from spikequant.bench.subjects import FLOAT, Subject
from spikequant.nn.products import kernels
from spikequant.readers.compiler import find_compiler

HERE = Path(__file__).resolve().parent
LIMITS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
SLOW = "state_quant"
"""A step of it takes half a minute."""


def limited(arguments: list[str]) -> int:
    """This program again, in a process that has AVX2 alone."""
    with tempfile.TemporaryDirectory() as folder:
        compiler = Path(folder, "cc")
        compiler.write_text(f'#!/bin/sh\nexec {find_compiler()} "$@" -march=haswell\n', encoding="utf-8")
        compiler.chmod(0o700)
        environment = {**os.environ, **LIMITS, "CC": str(compiler), "SPIKEQUANT_CACHE": str(Path(folder, "cache"))}
        command = [sys.executable, __file__, *arguments, "--here"]
        return subprocess.run(command, env=environment, check=False).returncode


def asked(subject: Subject) -> bool:
    return subject.is_ours or (not subject.half and subject.kind != FLOAT and SLOW not in subject.name)


def table(found: list[Result]) -> str:
    rows = []
    for result in found:
        own = next(r for r in result.rows if r.is_ours and r.kind != FLOAT).times[TRAINING].median
        for row in result.rows:
            times = row.times.get(TRAINING)
            if times is not None:
                ratio = "" if row.is_ours else f"{own / times.median:.2f}"
                spread = f"{1e3 * times.least:.3g} to {1e3 * times.most:.3g}"
                rows.append([result.workload, row.name, row.kind, f"{1e3 * times.median:.3g}", spread, ratio])
    heads = ["workload", "network", "quantized", "training step, ms", "(min to max)", "ours W8/U8 / this"]
    return markdown((heads, rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    parser.add_argument("--here", action="store_true", help="measure in this process")
    given = parser.parse_args()
    if not given.here:
        raise SystemExit(limited(sys.argv[1:]))
    assert not kernels.has_vnni(), "the compiler was not limited"
    names = given.workload or list(WORKLOADS)
    found = [
        measure(
            WORKLOADS[n], rounds=given.rounds, only=asked, inference=False, said=lambda t: print(t, file=sys.stderr)
        )
        for n in names
    ]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout
    facts = "; ".join(f"{name} {value}" for name, value in facts_here(commit.strip()).items() if value)
    arguments = " ".join(a for a in sys.argv[1:] if a != "--here")
    words = (
        "# A training step with AVX2 alone",
        "The networks of [speed.md](speed.md), W8/U8, beside every library's quantized training; "
        "`ONEDNN_MAX_CPU_ISA=AVX2`, `ATEN_CPU_CAPABILITY=avx2`, our C kernels compiled for Haswell. "
        "snnTorch's state_quant, hundreds of times slower, is left out.",
        table(found),
        f"{facts}. Command: `python benchmarks/speed_avx2.py {arguments}`.".replace(" `.", "`."),
    )
    (HERE / "speed_avx2.md").write_text("\n\n".join(words) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

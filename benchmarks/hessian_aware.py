"""Writes `hessian_aware.md` and its picture from the finished rows of `spikequant reproduce hessian-aware`::

SPIKEQUANT_DATA=... spikequant reproduce hessian-aware --scale local --out runs/hessian-aware --resume
python benchmarks/hessian_aware.py runs/hessian-aware --commit HASH
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from spikequant.law.atomic import write_text
from spikequant.recipes.reproduction import SCALES, Scale, recipe, table

PICTURE = "hessian_aware.svg"


def page(folder: Path, scale: Scale, commit: str, notes: str) -> tuple[str, str]:
    """The page and its picture."""
    found = recipe("hessian-aware")
    known = [row.name for row in found.rows(scale)]
    files = {name: folder / "rows" / f"{name}.json" for name in known}
    rows = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    text = table(found, scale, rows, {})
    missing = [name for name in known if name not in rows]
    ends = [
        "", "![Trace of a layer against the points of accuracy that it loses alone](" + PICTURE + ")", "",
        f"Rows not run: {', '.join(missing) or 'none'}.", "", notes, "",
        f"Command: `spikequant reproduce hessian-aware --scale {scale}`, then `python benchmarks/hessian_aware.py`. "
        f"Machine: {platform.machine()}, 2 cores shared with other work, no GPU, torch {torch.__version__}; seconds "
        f"are wall time on it. Commit {commit}.",
    ]  # fmt: skip
    return text + "\n".join(ends) + "\n", found.drawings(rows)["trace.svg"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", default="local", choices=SCALES)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--notes", type=Path, help="Markdown: goals that were missed, and what to try next")
    given = parser.parse_args()
    said = "" if given.notes is None else given.notes.read_text(encoding="utf-8").strip()
    text, picture = page(given.folder, given.scale, given.commit, said)
    write_text(Path(__file__).with_name(PICTURE), picture)
    write_text(Path(__file__).with_name("hessian_aware.md"), text)

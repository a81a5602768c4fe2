"""Writes a benchmark page (and its first picture) from the finished rows of `spikequant reproduce`::

SPIKEQUANT_DATA=... spikequant reproduce hessian-aware --scale local --out runs/hessian-aware --resume
python benchmarks/reproduced.py hessian-aware runs/hessian-aware --commit HASH
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from spikequant.law.atomic import write_text
from spikequant.recipes.reproduction import SCALES, Scale, recipe, recipe_names, table

HERE = Path(__file__).parent


def page(paper: str, folder: Path, scale: Scale, commit: str, notes: str) -> tuple[str, str]:
    """The page and its picture, empty where the recipe draws none."""
    found = recipe(paper)
    known = [row.name for row in found.rows(scale)]
    files = {name: folder / "rows" / f"{name}.json" for name in known}
    rows = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}
    missing = [name for name in known if name not in rows]
    picture = next(iter(found.drawings(rows).values()), "")
    ends = ["", f"![What the rows say]({stem(paper)}.svg)"] if picture else []
    ends += [
        "", f"Rows not run: {', '.join(missing) or 'none'}.", "", notes, "",
        f"Command: `spikequant reproduce {paper} --scale {scale}`, then `python benchmarks/reproduced.py`. "
        f"Machine: {platform.machine()}, 2 cores shared with other work, no GPU, torch {torch.__version__}; seconds "
        f"are wall time on it. Commit {commit}.",
    ]  # fmt: skip
    return table(found, scale, rows, {}) + "\n".join(ends) + "\n", picture


def stem(paper: str) -> str:
    """Name of the files of a paper's page."""
    return paper.replace("-", "_")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("paper", choices=recipe_names())
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", default="local", choices=SCALES)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--notes", type=Path, help="Markdown: goals that were missed, and what to try next")
    given = parser.parse_args()
    said = "" if given.notes is None else given.notes.read_text(encoding="utf-8").strip()
    text, picture = page(given.paper, given.folder, given.scale, given.commit, said)
    if picture:
        write_text(HERE / f"{stem(given.paper)}.svg", picture)
    write_text(HERE / f"{stem(given.paper)}.md", text)

"""``spikequant bench``: the speed of training and running, here, beside what else is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spikequant.cli import options, run_folder
from spikequant.cli.screen import Screen, json_ready
from spikequant.cli.tables import Table
from spikequant.law.atomic import write_text

PAGE, MARKDOWN, RECORD = "bench.html", "bench.md", "bench.json"


def bench(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write.")] = Path("runs/bench"),
    quick: Annotated[bool, typer.Option("--quick", help="About a minute: few steps, small batches.")] = False,
    workloads: Annotated[
        list[str] | None,
        typer.Option("--workload", metavar="NAME", help="conv, mlp or sew; may be given several times."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often every row is timed.")] = 7,
    bits: Annotated[int, typer.Option(min=2, max=8, help="Bits of weights and membranes.")] = 8,
    as_json: options.JsonOption = False,
) -> None:
    """Time a quantized network against the same network in other libraries.

    Example:
      spikequant bench --quick --out runs/bench

    SpikingJelly, snnTorch, Norse, sinabs and Brevitas take part where they are installed. All rows take turns in one
    process; close other programs first.
    """
    from spikequant.bench import WORKLOADS, run

    screen = Screen(as_json=as_json)
    folder = run_folder.made_folder(out)
    session = run(names=tuple(workloads or WORKLOADS), bits=bits, rounds=rounds, quick=quick, said=screen.note)
    write_text(folder / MARKDOWN, session.markdown())
    write_text(folder / PAGE, session.html())
    write_text(folder / RECORD, json.dumps(json_ready(session.to_dict()), indent=1))
    for word in session.words:
        screen.say(word)
    for heading, (heads, rows) in session.tables():
        screen.say()
        screen.table(Table(tuple(heads), tuple(tuple(cell.strip("*") for cell in row) for row in rows), title=heading))
    screen.files(folder, {PAGE: "the same as a page", MARKDOWN: "these tables", RECORD: "all figures"})
    screen.document({"command": "bench", **session.to_dict(), "out": out})

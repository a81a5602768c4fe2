"""``spikequant report``: the page of a run folder, made again from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikequant.cli import options, run_folder
from spikequant.cli.measured import measured_networks
from spikequant.cli.pages import write_page
from spikequant.cli.screen import Screen


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder of `spikequant quantize` or `spikequant demo`.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write report.html into.", show_default="the run folder"),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write the page of a run again, from the files in its run folder.

    Example:
      spikequant report runs/w4u8

    The page is one file that opens without a network connection: accuracy, firing rates, spike
    rasters, memory, operations, the plan, and how to run it again.
    """
    networks = measured_networks(run)
    folder = run if out is None else run_folder.made_folder(out)
    path = write_page(networks, folder)
    if out is None:
        run_folder.note_file(run, run_folder.REPORT)
    screen = Screen(as_json=as_json)
    screen.say(f"{path}: {path.stat().st_size / 1e6:.1f} MB. Open it in a browser.")
    screen.document({"command": "report", "run": run, "report": path, "networks": [n.name for n in networks]})

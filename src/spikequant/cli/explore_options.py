"""Options of `spikequant explore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikequant.cli.options import PLAN, RUN
from spikequant.cli.plan_options import one_of

SEARCH = "Search"
SAMPLERS = ("grid", "random", "tpe", "nsga2")
REWARDS = ("additive", "multiplicative")

SpaceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Space from a .toml or .json file: a plan in which a value may be a list.",
        show_default="bits of weights and membranes, rounding, clipping, leaks",
        rich_help_panel=PLAN,
    ),
]
TargetOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0,
        max=1,
        help="Accuracy that a candidate must keep, 0 to 1.",
        show_default="what --max-drop leaves",
        rich_help_panel=SEARCH,
    ),
]
DropOption = Annotated[
    float,
    typer.Option(metavar="POINTS", min=0, max=100, help="Points of accuracy that may be lost.", rich_help_panel=SEARCH),
]
SamplerOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"How candidates are proposed: {', '.join(SAMPLERS)}.",
        autocompletion=one_of(SAMPLERS),
        rich_help_panel=SEARCH,
    ),
]
TrialsOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="Candidates to measure in all; with --staged, those of single roles come on top.",
        rich_help_panel=SEARCH,
    ),
]
StagedOption = Annotated[
    bool,
    typer.Option(
        "--staged", help="First each role alone, then combinations of what was tolerated.", rich_help_panel=SEARCH
    ),
]
ObjectivesOption = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Figures of the front: accuracy, flash_bytes, ram_bytes, energy_pj, emd, dead.",
        rich_help_panel=SEARCH,
    ),
]
RewardOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"What chooses among those that keep the target: {', '.join(REWARDS)}.",
        autocompletion=one_of(REWARDS),
        rich_help_panel=SEARCH,
    ),
]
MuOption = Annotated[
    float,
    typer.Option(
        metavar="WEIGHT", min=0, help="Accuracy that all of the memory is worth (additive).", rich_help_panel=SEARCH
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Database that keeps the trials, for several workers on one study, as in postgresql://host/db.",
        show_default="a journal in the run folder",
        rich_help_panel=RUN,
    ),
]
NameOption = Annotated[str, typer.Option(metavar="NAME", help="Name of the study in its storage.", rich_help_panel=RUN)]
RayOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Measure on a Ray cluster: its address, or local.", rich_help_panel=RUN),
]

"""``spikequant reproduce``: the experiment of a paper, row by row, and its table beside the paper's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikequant.cli import options
from spikequant.cli.options import RUN
from spikequant.cli.program import Interrupted
from spikequant.cli.provenance import command_line, versions
from spikequant.cli.run_folder import RESULT, RunConfig, RunFolder
from spikequant.cli.screen import Screen
from spikequant.law.errors import ArtifactError

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="PAPER",
        help="The recipe: beyond-accuracy, hessian-aware, q-spinn or sigmoid-sum.",
    ),
]
ScaleOption = Annotated[
    str,
    typer.Option(
        metavar="SCALE",
        help="smoke: a minute, on data that come with the installation; local: hours on two cores; paper: all of it.",
        rich_help_panel=RUN,
    ),
]
RowsOption = Annotated[
    str | None,
    typer.Option(
        "--rows",
        metavar="PATTERNS",
        help="Run only the rows of these names (* matches any text; several with commas); default: all.",
        rich_help_panel=RUN,
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Run the rows that are there anew; with --rows only those, and the others stay.",
        rich_help_panel=RUN,
    ),
]


def reproduce(
    paper: NameArgument,
    scale: ScaleOption = "smoke",
    rows: RowsOption = None,
    data_dir: options.DataDirOption = None,
    out: options.OutOption = Path("runs/reproduce"),
    resume: options.ResumeOption = False,
    overwrite: OverwriteOption = False,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Rebuild the experiment of a paper and write its table beside the paper's numbers.

    Examples:
      spikequant reproduce q-spinn --scale smoke --out runs/q-spinn
      spikequant reproduce q-spinn --scale local --out runs/local --resume
      spikequant reproduce q-spinn --scale local --out runs/local --resume --rows 'mnist-*'
      spikequant reproduce q-spinn --scale local --out runs/local --overwrite --rows mnist-0

    Every row is kept when it is done, and the table is written anew after each; --resume goes
    on with the rows that are missing. The table says seeds, intervals and what differs.
    """
    from spikequant.recipes.reproduction import SCALES as scales
    from spikequant.recipes.reproduction import Bench, Scale, chosen_rows, recipe, reproduce

    found_recipe = recipe(paper)
    chosen: Scale | None = next((known for known in scales if known == scale), None)
    if chosen is None:
        raise typer.BadParameter(f"expected one of {', '.join(scales)}, got {scale}", param_hint="'--scale'")
    only = [pattern.strip() for pattern in rows.split(",")] if rows is not None else []
    chosen_rows([row.name for row in found_recipe.rows(chosen)], only)  # before --overwrite removes anything
    screen = Screen(as_json=as_json)
    with RunFolder.open(out, "reproduce", resume=resume, overwrite=overwrite) as folder:
        config = _config(paper, scale, seed)
        if overwrite and rows is not None:
            _check_same(folder.before, config, out)
        folder.begin(config)
        try:
            bench = Bench(folder=out, data_dir=data_dir, seed=seed, say=screen.note)
            found = reproduce(paper, chosen, bench, only=only, anew=overwrite)
        except KeyboardInterrupt as stopped:
            words = command_line()
            go_on = words if "--resume" in words else f"{words} --resume"
            raise Interrupted(f"interrupted; finished rows are kept. Go on with\n  {go_on}") from stopped
        files = [*found["files"], RESULT]
        record = {"command": "reproduce", "out": out, **found, "files": files}
        folder.write_json(RESULT, record)
        folder.end("finished", files)
    screen.say(str(found["table"]))
    screen.document(record)


def _check_same(before: RunConfig | None, now: RunConfig, out: Path) -> None:
    """Rows that stay in a table must be of the same paper, scale and seed as those that are run anew."""
    facts = [(run.command, run.options, run.seed) for run in (before, now) if run is not None]
    if facts[0] != facts[-1]:
        told = ", ".join(f"{name} {value}" for name, value in {**facts[0][1], "seed": facts[0][2]}.items())
        raise ArtifactError(
            f"--out {out} holds a run of `{facts[0][0]}` ({told}); --overwrite --rows replaces rows of the same paper, "
            "scale and seed: leave --rows out, or choose another folder"
        )


def _config(paper: str, scale: str, seed: int) -> RunConfig:
    return RunConfig(
        command="reproduce",
        command_line=command_line(),
        seed=seed,
        options={"paper": paper, "scale": scale},
        versions=versions(),
    )

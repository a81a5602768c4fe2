"""Options that several commands share, with one wording."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from spikequant.cli.datasets import complete_data
from spikequant.cli.networks import MODEL_NAMES
from spikequant.data import names

RUN, DATA, TRAINING, PLAN = "Run folder", "Weights and data", "Training", "Plan"


def _complete_network(incomplete: str) -> Iterable[str]:
    files = [f"{path.name}:build" for path in sorted(Path().glob("*.py"))]
    return [name for name in (*files, *MODEL_NAMES) if name.startswith(incomplete)]


NetworkArgument = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        help="Your network: net.py:build (a file and a function in it that returns an nn.Module), "
        "package.module:build, a NIR graph (net.nir:dt=1e-3,reset=v_reset), "
        f"or a network of spikequant: {', '.join(MODEL_NAMES)}.",
        autocompletion=_complete_network,
    ),
]
NetworkOrRun = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        help="A run folder of `spikequant train`, or your network as net.py:build, package.module:build or net.nir "
        f"(then say --weights and --data), or one of {', '.join(MODEL_NAMES)}.",
        autocompletion=_complete_network,
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Trained weights: .safetensors, or .pt / .pth with a state_dict.",
        show_default="those of the run folder",
        rich_help_panel=DATA,
    ),
]
_DATA = typer.Option(
    "--data",
    metavar="NAME",
    help=f"Data set: {', '.join(names())}.",
    autocompletion=complete_data,
    rich_help_panel=DATA,
)
DataOption = Annotated[str, _DATA]
OptionalData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        help=f"Data set: {', '.join(names())}.",
        autocompletion=complete_data,
        show_default="that of the run folder",
        rich_help_panel=DATA,
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        help="Folder that holds the data sets.",
        envvar="SPIKEQUANT_DATA",
        show_default="the variable SPIKEQUANT_DATA",
        rich_help_panel=DATA,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Take at most N samples to train on and N to test on, for a quick try.",
        show_default="all",
        rich_help_panel=DATA,
    ),
]
FoldOption = Annotated[
    int | None,
    typer.Option(metavar="K", min=0, help="Fold to test on, for data split in folds.", rich_help_panel=DATA),
]
StepsOption = Annotated[
    int | None, typer.Option(metavar="T", min=1, help="Time steps of a sample, for event data.", rich_help_panel=DATA)
]
StepMsOption = Annotated[
    float | None, typer.Option(metavar="MS", help="Length of a time step, for event data.", rich_help_panel=DATA)
]
WindowMsOption = Annotated[
    float | None,
    typer.Option(metavar="MS", help="Length of the samples that recordings are cut into.", rich_help_panel=DATA),
]
CountsOption = Annotated[
    bool | None,
    typer.Option(
        "--counts/--no-counts",
        help="Frames of event data hold how many events a pixel sent in a step, or only whether.",
        show_default="as the data set documents it",
        rich_help_panel=DATA,
    ),
]
AugmentOption = Annotated[
    bool,
    typer.Option(
        "--augment",
        help="Change training samples anew in every epoch: shifts, mirroring, dropped events.",
        rich_help_panel=DATA,
    ),
]
DownloadOption = Annotated[
    bool,
    typer.Option(
        "--download", help="Fetch files that are missing, where the data set allows it.", rich_help_panel=DATA
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Samples per batch in training.", rich_help_panel=TRAINING)
]
LearningRateOption = Annotated[
    float,
    typer.Option(metavar="RATE", help="Learning rate of Adam; it falls along a cosine.", rich_help_panel=TRAINING),
]
OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Run folder to write.", rich_help_panel=RUN)]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out behind what it has finished.", rich_help_panel=RUN)
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run that is in --out.", rich_help_panel=RUN)
]
SeedOption = Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of everything that is random.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output; words go to standard error.")
]


def check_rate(rate: float) -> None:
    """A learning rate is a finite number above 0.

    Raises:
        BadParameter: anything else.
    """
    if not 0 < rate < float("inf"):
        raise typer.BadParameter(f"a learning rate is a number above 0, got {rate}", param_hint="'--lr'")

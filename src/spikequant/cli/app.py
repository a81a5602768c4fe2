"""The program: its commands in the order in which a person meets them."""

from __future__ import annotations

from typing import Annotated

import typer

from spikequant import __version__
from spikequant.cli.bench import bench
from spikequant.cli.compare import compare
from spikequant.cli.demo import demo
from spikequant.cli.explore import explore
from spikequant.cli.export import export
from spikequant.cli.program import Command, Program
from spikequant.cli.quantize import quantize
from spikequant.cli.report import report
from spikequant.cli.reproduce import reproduce
from spikequant.cli.sensitivity import sensitivity
from spikequant.cli.targets import targets
from spikequant.cli.train import train
from spikequant.cli.verify import verify

app = typer.Typer(cls=Program, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Quantize spiking neural networks, and ship integers that do what was measured.

    Start here:
      spikequant demo
    """
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


for _command in (
    demo, train, sensitivity, quantize, explore, compare, verify, report, export, targets, reproduce, bench,
):  # fmt: skip
    app.command(cls=Command, name=_command.__name__)(_command)

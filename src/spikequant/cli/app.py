"""The commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from spikequant import __version__
from spikequant.analyse import Side
from spikequant.law.artifact import load, network_hash
from spikequant.law.errors import ArtifactError, MismatchError
from spikequant.readers import golden
from spikequant.recipes.demo import DemoResult, DemoRow, make_folder, run_demo, write_demo

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Quantize spiking neural networks, and ship integers that do what was measured."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for networks, plans and figures.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the training.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train a spiking network on handwritten digits, quantize it twice, prove its integers, save them."""
    make_folder(out)
    result = run_demo(seed=seed, console=Console(stderr=True), quiet=as_json)
    written = write_demo(result, out)
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    console = Console()
    console.print(demo_table(result))
    for row in result.rows:
        console.print(f"{row.name}: {row.verified}", highlight=False)
    console.print(f"in {result.seconds:.0f} s, written: {', '.join(str(path) for path in written)}", highlight=False)
    if any(row.verified.differences for row in result.rows):
        raise typer.Exit(1)


def demo_table(result: DemoResult) -> Table:
    """The table of the demo."""
    first = result.rows[0].comparison
    table = Table(title="scikit-learn digits, 360 test images, T = 8", caption=(
        f"EMD floor: {first.floor:.4f} between two halves of the data, {result.seed_floor:.4f} between two float seeds"
    ))  # fmt: skip
    for name in ("network", "accuracy", "change", "EMD", "dead", "memory", "SynOps"):
        table.add_column(name, justify="left" if name == "network" else "right")
    side = first.reference
    dead = f"{_reference_dead(result.rows[0]):.1%}"
    table.add_row("float32", f"{side.accuracy:.2%}", "", "0", dead, *_costs(side))
    for row in result.rows:
        c, q = row.comparison, row.comparison.quantized
        change = f"{c.difference:+.2f} ± {c.interval:.2f}"
        table.add_row(row.name, f"{q.accuracy:.2%}", change, f"{c.emd:.4f}", f"{c.dead:.1%}", *_costs(q))
    return table


def _costs(side: Side) -> tuple[str, str]:
    memory = (side.flash_bytes + side.ram_bytes) / 1024
    return f"{memory:.1f} KiB", f"{side.effective_acs + side.effective_macs:,.0f}"


def _reference_dead(row: DemoRow) -> float:
    layers = row.comparison.layers
    return sum(layer.reference_dead * layer.neurons for layer in layers) / sum(layer.neurons for layer in layers)


@app.command()
def verify(
    network: Annotated[Path, typer.Argument(help="A network written by spikequant (.spq).")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Check a network file: its hash, and its embedded test vectors against the golden model."""
    net = load(network)
    if net.vectors is None:
        raise ArtifactError(f"{network} carries no test vectors; lower the model again with an example input")
    run = golden.run(net, net.vectors.inputs)
    differences = int((run.scores != net.vectors.scores).sum())
    golden_facts = {
        "spikes": sum(int(run.outputs[n.name].sum()) for n in net.neurons if n.spec.output == "spike"),
        "neuron_steps": sum(o.size for o in run.outputs.values()),
        "differences": differences,
    }
    facts = {"network": str(network), "sha256": network_hash(net), "readers": {"golden": golden_facts}}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{network}: SHA-256 {facts['sha256']}")
        typer.echo(
            f"golden: {golden_facts['neuron_steps']:,} neuron-steps, {golden_facts['spikes']:,} spikes, "
            f"{differences} differences"
        )
    if differences:
        raise MismatchError(f"{network}: the embedded test vectors do not give the scores that the file states")

"""``spikequant train``: a real-valued network, and everything about its training, in a run folder."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli import options, run_folder
from spikequant.cli.datasets import DataChoice
from spikequant.cli.options import TRAINING
from spikequant.cli.progress import bar
from spikequant.cli.recipe import Recipe, RecipeOption, recipe_options
from spikequant.cli.run_folder import RunConfig, RunFolder
from spikequant.cli.screen import Screen
from spikequant.cli.workers import is_first, joined

if TYPE_CHECKING:
    from torch import nn

    from spikequant.cli.datasets import ShellData

FILES = {
    run_folder.WEIGHTS: "the trained weights",
    run_folder.CHECKPOINT: "weights and optimizer, for --resume",
    run_folder.METRICS: "loss and accuracy, one line per epoch",
    run_folder.CURVES: "the same as a picture",
    run_folder.RESULT: "the same as --json prints",
    run_folder.CONFIG: "command, options, versions",
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What `train` was asked for."""

    network: str
    data: DataChoice
    epochs: int
    lr: float
    batch_size: int
    weights: Path | None
    recipe: Recipe
    seed: int


def train(
    network: options.NetworkArgument,
    data: options.DataOption,
    epochs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Passes over the training samples.", rich_help_panel=TRAINING)
    ] = 5,
    lr: options.LearningRateOption = 1e-3,
    batch_size: options.BatchSizeOption = 64,
    recipe: RecipeOption = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from these weights.", show_default="random", rich_help_panel=TRAINING),
    ] = None,
    data_dir: options.DataDirOption = None,
    limit: options.LimitOption = None,
    fold: options.FoldOption = None,
    steps: options.StepsOption = None,
    step_ms: options.StepMsOption = None,
    window_ms: options.WindowMsOption = None,
    counts: options.CountsOption = None,
    download: options.DownloadOption = False,
    augment: options.AugmentOption = False,
    out: options.OutOption = Path("runs/train"),
    resume: options.ResumeOption = False,
    overwrite: options.OverwriteOption = False,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Train a spiking network and keep weights, figures and settings in a run folder.

    Example:
      spikequant train net.py:build --data mnist --epochs 5 --out runs/mnist

    The network is tried on a real batch before anything is trained. Ctrl-C keeps the epochs
    that are done; the same command with --resume goes on and ends with the same weights. Under
    torchrun (torchrun --nproc-per-node 2 -m spikequant train ...) processes share the batches.
    """
    choice = DataChoice(
        name=data, folder=data_dir, limit=limit, fold=fold, steps=steps, step_ms=step_ms,
        window_ms=window_ms, counts=counts, download=download, augment=augment,
    )  # fmt: skip
    asked = Training(
        network=network, data=choice, epochs=epochs, lr=lr, batch_size=batch_size, weights=weights,
        recipe=Recipe.of(recipe, quantized=False), seed=seed,
    )  # fmt: skip
    screen = Screen(as_json=as_json)
    with joined(out) as mine, RunFolder.open(mine, "train", resume=resume, overwrite=overwrite) as folder:
        record = _train(asked, folder, screen)
    if not is_first():
        return
    test = record["data"]["samples"]["test"]
    screen.say(f"Trained: {record['accuracy']:.2%} of {test:,} test samples right.", style="bold green")
    screen.files(out, FILES)
    again = shlex.quote(str(out))
    screen.say("Next, with bits of your choice or as few as half a point of accuracy allows:")
    screen.command(f"  spikequant quantize {again} --weight-bits 4 --membrane-bits 8 --out runs/w4u8")
    screen.command(f"  spikequant quantize {again} --max-drop 0.5 --out runs/small")
    screen.document(record)


def _train(asked: Training, folder: RunFolder, screen: Screen) -> dict[str, Any]:
    from spikequant.cli.datasets import open_data
    from spikequant.cli.foreign_neurons import spiking_layers
    from spikequant.cli.networks import build_network, network_source
    from spikequant.cli.provenance import command_line, versions
    from spikequant.cli.training_loop import train_in_folder
    from spikequant.cli.trial_batch import check_with_batch
    from spikequant.cli.weights import load_weights

    options.check_rate(asked.lr)
    source = network_source(asked.network)
    data = open_data(asked.data, batch_size=asked.batch_size, seed=asked.seed)
    model = build_network(source, seed=asked.seed)
    if asked.weights is not None:
        load_weights(model, asked.weights)
    check_with_batch(model, data, source)
    if not spiking_layers(model):
        screen.note(f"note: {asked.network} has no spiking neuron; it can be trained, but not quantized")
    config = RunConfig(
        command="train",
        command_line=command_line(),
        seed=asked.seed,
        options={
            "epochs": asked.epochs,
            "lr": asked.lr,
            "batch_size": asked.batch_size,
            "weights": asked.weights,
            **recipe_options(asked.recipe),
        },
        network=source.record(),
        data=data.record,
        versions=versions(),
    )
    folder.begin(config)
    screen.note(f"{data}; {sum(p.numel() for p in model.parameters()):,} parameters")
    facts = {"kind": "real", "network": asked.network}
    train_in_folder(model, data, folder, screen, epochs=asked.epochs, lr=asked.lr, weight_facts=facts,
                    recipe=asked.recipe)  # fmt: skip
    record = {
        "command": "train",
        "out": folder.path,
        "data": data.record,
        "seed": asked.seed,
        "accuracy": _tested(model, data, screen),
        "epochs": folder.metrics(),
        "files": list(FILES),
    }
    folder.write_json(run_folder.RESULT, record)
    folder.end("finished", [name for name in FILES if name != run_folder.CONFIG and (folder / name).is_file()])
    return record


def _tested(model: nn.Module, data: ShellData, screen: Screen) -> float:
    from spikequant.training import evaluate

    with bar(screen.progress, "test", len(data.test)) as shown:
        return evaluate(model, shown.watch(data.test)).accuracy

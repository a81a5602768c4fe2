"""``spikequant train``: a real-valued network, and everything about its training, in a run folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli import options, run_folder
from spikequant.cli.options import TRAINING
from spikequant.cli.program import Interrupted
from spikequant.cli.run_folder import RunConfig, RunFolder
from spikequant.cli.screen import Screen

if TYPE_CHECKING:
    from torch import nn

    from spikequant.cli.datasets import ShellData
    from spikequant.training import Epoch

FILES = {
    run_folder.WEIGHTS: "the trained weights",
    run_folder.METRICS: "loss and accuracy, one line per epoch",
    run_folder.CONFIG: "command, options, versions: how to run it again",
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What `train` was asked for."""

    network: str
    data: str
    data_dir: Path | None
    epochs: int
    lr: float
    batch_size: int
    limit: int | None
    weights: Path | None
    seed: int


def train(
    network: options.NetworkArgument,
    data: options.DataOption,
    epochs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Passes over the training samples.", rich_help_panel=TRAINING)
    ] = 5,
    lr: options.LearningRateOption = 1e-3,
    batch_size: options.BatchSizeOption = 64,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from these weights.", show_default="random", rich_help_panel=TRAINING),
    ] = None,
    data_dir: options.DataDirOption = None,
    limit: options.LimitOption = None,
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
    that are done; the same command with --resume goes on and ends with the same weights.
    """
    asked = Training(
        network=network, data=data, data_dir=data_dir, epochs=epochs, lr=lr,
        batch_size=batch_size, limit=limit, weights=weights, seed=seed,
    )  # fmt: skip
    screen = Screen(as_json=as_json)
    with RunFolder.open(out, "train", resume=resume, overwrite=overwrite) as folder:
        record = _train(asked, folder, screen)
    _tell(record, folder.path, screen)


def _train(asked: Training, folder: RunFolder, screen: Screen) -> dict[str, Any]:
    from spikequant.cli.datasets import open_data
    from spikequant.cli.networks import build_network, network_source
    from spikequant.cli.provenance import command_line, versions
    from spikequant.cli.trial_batch import check_with_batch, spiking_neurons
    from spikequant.cli.weights import load_weights

    _check_rate(asked.lr)
    source = network_source(asked.network)
    data = open_data(asked.data, asked.data_dir, batch_size=asked.batch_size, seed=asked.seed, limit=asked.limit)
    model = build_network(source, seed=asked.seed)
    if asked.weights is not None:
        load_weights(model, asked.weights)
    check_with_batch(model, data.train, classes=data.classes, source=source)
    if not spiking_neurons(model):
        screen.note(f"note: {asked.network} has no spiking neuron (spikequant.nn); it trains, but cannot be quantized")
    config = RunConfig(
        command="train",
        command_line=command_line(),
        seed=asked.seed,
        options={"epochs": asked.epochs, "lr": asked.lr, "batch_size": asked.batch_size,
                 "weights": None if asked.weights is None else str(asked.weights)},
        network=source.record(),
        data=data.record,
        versions=versions(),
    )  # fmt: skip
    folder.begin(config)
    screen.note(f"{data}; {sum(p.numel() for p in model.parameters()):,} parameters")
    return _fit(model, data, asked, folder, screen)


def _fit(model: nn.Module, data: ShellData, asked: Training, folder: RunFolder, screen: Screen) -> dict[str, Any]:
    """Train with one bar over all epochs; every finished epoch is on the disk before the next begins."""
    from spikequant.cli.progress import bar
    from spikequant.cli.weights import save_weights
    from spikequant.training import fit

    facts = {"kind": "real", "network": asked.network}
    log = _EpochLog(folder, screen, asked.epochs, resuming=folder.resuming)
    total = (asked.epochs - log.done) * (len(data.train) + len(data.test))
    try:
        with bar(screen.progress, f"epoch {log.done + 1}/{asked.epochs}", total) as shown:

            def on_epoch(epoch: Epoch) -> None:
                save_weights(model, folder / run_folder.WEIGHTS, facts=facts)
                log.add(epoch)
                shown.title(f"epoch {min(epoch.epoch + 1, asked.epochs)}/{asked.epochs}")

            result = fit(
                model,
                shown.watch(data.train),
                epochs=asked.epochs,
                lr=asked.lr,
                validation=shown.watch(data.test),
                checkpoint=folder / run_folder.CHECKPOINT,
                resume=folder.resuming,
                quiet=True,
                on_epoch=on_epoch,
            )
        save_weights(model, folder / run_folder.WEIGHTS, facts=facts)
        log.complete(result.epochs)
    except KeyboardInterrupt as stopped:
        raise Interrupted(_how_to_go_on(folder, log.done, asked.epochs)) from stopped
    folder.end("finished", FILES)
    epochs = folder.metrics()
    accuracy = result.epochs[-1].validation
    return {"command": "train", "out": folder.path, "data": data.record, "seed": asked.seed,
            "accuracy": accuracy, "epochs": epochs, "files": list(FILES)}  # fmt: skip


class _EpochLog:
    """``metrics.jsonl`` and a line on standard error for every finished epoch."""

    def __init__(self, folder: RunFolder, screen: Screen, epochs: int, *, resuming: bool) -> None:
        self.folder, self.screen, self.epochs = folder, screen, epochs
        has_checkpoint = resuming and (folder / run_folder.CHECKPOINT).exists()
        self.done = len(folder.metrics()) if has_checkpoint else 0
        folder.keep_metrics(self.done)
        if resuming:
            screen.note(f"going on behind epoch {self.done} of {epochs}")
        self.started = time.perf_counter()

    def add(self, epoch: Epoch) -> None:
        """One more epoch is done."""
        now = time.perf_counter()
        self.done, seconds, self.started = epoch.epoch, now - self.started, now
        self.folder.add_metrics(_epoch_record(epoch, round(seconds, 3)))
        right = f"train {epoch.accuracy:.2%}, test {epoch.validation or 0.0:.2%}"
        self.screen.note(f"epoch {epoch.epoch}/{self.epochs}: loss {epoch.loss:.4f}, {right}, {seconds:.0f} s")

    def complete(self, epochs: Sequence[Epoch]) -> None:
        """Add the line of an epoch whose checkpoint was written just before the run was cut off."""
        for epoch in epochs[len(self.folder.metrics()) :]:
            self.folder.add_metrics(_epoch_record(epoch, None))


def _epoch_record(epoch: Epoch, seconds: float | None) -> dict[str, Any]:
    return {
        "epoch": epoch.epoch,
        "loss": epoch.loss,
        "train_accuracy": epoch.accuracy,
        "test_accuracy": epoch.validation,
        "seconds": seconds,
    }


def _tell(record: dict[str, Any], folder: Path, screen: Screen) -> None:
    screen.say(
        f"Trained: {record['accuracy']:.2%} of {record['data']['test']:,} test samples right.", style="bold green"
    )
    screen.files(folder, FILES)
    screen.say(
        f"Next: spikequant quantize {shlex.quote(str(folder))} --weight-bits 4 --membrane-bits 8 --out runs/w4u8"
    )
    screen.document(record)


def _check_rate(rate: float) -> None:
    if not 0 < rate < float("inf"):
        raise typer.BadParameter(f"a learning rate is a number above 0, got {rate}", param_hint="'--lr'")


def _how_to_go_on(folder: RunFolder, done: int, epochs: int) -> str:
    assert folder.config is not None
    kept = f"{done} of {epochs} epochs are kept in {folder.path}" if done else "no epoch was finished"
    return f"interrupted; {kept}. Go on with\n  {folder.config.command_line} --resume"

"""Training at the shell: one bar over all epochs, a line and a checkpoint per epoch, Ctrl-C that keeps them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spikequant.cli import run_folder
from spikequant.cli.program import Interrupted
from spikequant.cli.progress import bar
from spikequant.cli.run_folder import RunFolder
from spikequant.cli.screen import Screen

if TYPE_CHECKING:
    from torch import nn

    from spikequant.cli.datasets import ShellData
    from spikequant.training import Epoch


def train_in_folder(
    model: nn.Module,
    data: ShellData,
    folder: RunFolder,
    screen: Screen,
    *,
    epochs: int,
    lr: float,
    weight_facts: dict[str, Any],
) -> None:
    """`fit` with everything on the disk after each epoch; an interrupted run goes on where it was.

    Raises:
        Interrupted: Ctrl-C; the sentence says what was kept and how to go on.
    """
    from spikequant.cli.weights import save_weights
    from spikequant.training import fit

    log = EpochLog(folder, screen, epochs)
    validation = data.validation
    total = (epochs - log.done) * (len(data.train) + (0 if validation is None else len(validation)))
    try:
        with bar(screen.progress, f"epoch {log.done + 1}/{epochs}", total) as shown:

            def on_epoch(epoch: Epoch) -> None:
                save_weights(model, folder / run_folder.WEIGHTS, facts=weight_facts)
                log.add(epoch)
                shown.title(f"epoch {min(epoch.epoch + 1, epochs)}/{epochs}")

            result = fit(
                model,
                shown.watch(data.train),
                epochs=epochs,
                lr=lr,
                validation=None if validation is None else shown.watch(validation),
                checkpoint=folder / run_folder.CHECKPOINT,
                resume=folder.resuming,
                quiet=True,
                on_epoch=on_epoch,
            )
        if getattr(result, "interrupted", False):
            raise KeyboardInterrupt
        save_weights(model, folder / run_folder.WEIGHTS, facts=weight_facts)
        log.complete(result.epochs)
    except KeyboardInterrupt as stopped:
        raise Interrupted(_how_to_go_on(folder, log.done, epochs)) from stopped


class EpochLog:
    """``metrics.jsonl``, and a line on standard error for every finished epoch."""

    def __init__(self, folder: RunFolder, screen: Screen, epochs: int) -> None:
        self.folder, self.screen, self.epochs = folder, screen, epochs
        has_checkpoint = folder.resuming and (folder / run_folder.CHECKPOINT).exists()
        self.done = len(folder.metrics()) if has_checkpoint else 0
        folder.keep_metrics(self.done)
        if folder.resuming:
            screen.note(f"going on behind epoch {self.done} of {epochs}")
        self.started = time.perf_counter()

    def add(self, epoch: Epoch) -> None:
        """One more epoch is done."""
        now = time.perf_counter()
        self.done, seconds, self.started = epoch.epoch, now - self.started, now
        self.folder.add_metrics(_record(epoch, round(seconds, 3)))
        held_out = "" if epoch.validation is None else f", validation {epoch.validation:.2%}"
        right = f"train {epoch.accuracy:.2%}{held_out}"
        self.screen.note(f"epoch {epoch.epoch}/{self.epochs}: loss {epoch.loss:.4f}, {right}, {seconds:.1f} s")

    def complete(self, epochs: Sequence[Epoch]) -> None:
        """Add the line of an epoch whose checkpoint was written just before the run was cut off."""
        for epoch in epochs[len(self.folder.metrics()) :]:
            self.folder.add_metrics(_record(epoch, None))


def _record(epoch: Epoch, seconds: float | None) -> dict[str, Any]:
    return {
        "epoch": epoch.epoch,
        "loss": epoch.loss,
        "train_accuracy": epoch.accuracy,
        "validation_accuracy": epoch.validation,
        "seconds": seconds,
    }


def _how_to_go_on(folder: RunFolder, done: int, epochs: int) -> str:
    assert folder.config is not None
    kept = f"{done} of {epochs} epochs are kept in {folder.path}" if done else "no epoch was finished"
    return f"interrupted; {kept}. Go on with\n  {folder.config.command_line} --resume"

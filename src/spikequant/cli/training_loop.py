"""Training at the shell: one bar over all epochs, a line and a checkpoint per epoch, Ctrl-C that keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spikequant.cli import run_folder
from spikequant.cli.curves import curves_svg
from spikequant.cli.program import Interrupted
from spikequant.cli.progress import bar
from spikequant.cli.recipe import Recipe
from spikequant.cli.run_folder import RunFolder
from spikequant.cli.screen import Screen
from spikequant.law.atomic import write_text

if TYPE_CHECKING:
    from torch import nn

    from spikequant.cli.datasets import ShellData
    from spikequant.training import Epoch

PLAIN = Recipe()


def train_in_folder(
    model: nn.Module,
    data: ShellData,
    folder: RunFolder,
    screen: Screen,
    *,
    epochs: int,
    lr: float,
    weight_facts: dict[str, Any],
    recipe: Recipe = PLAIN,
    teacher: nn.Module | None = None,
) -> None:
    """`fit` with everything on the disk after each epoch; an interrupted run goes on where it was.

    `teacher` is the float network that a recipe may distil from.

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
                **recipe.fit_options(teacher),
            )
    except KeyboardInterrupt as stopped:  # before the first epoch began, or while its figures were written
        raise Interrupted(_how_to_go_on(folder, log.done, epochs)) from stopped
    log.complete(result.epochs)
    if result.epochs:
        save_weights(model, folder / run_folder.WEIGHTS, facts=weight_facts)
    if result.interrupted:
        raise Interrupted(_how_to_go_on(folder, len(result.epochs), epochs))


class EpochLog:
    """``metrics.jsonl``, and a line on standard error for every finished epoch."""

    def __init__(self, folder: RunFolder, screen: Screen, epochs: int) -> None:
        self.folder, self.screen, self.epochs = folder, screen, epochs
        has_checkpoint = folder.resuming and (folder / run_folder.CHECKPOINT).exists()
        self.done = len(folder.metrics()) if has_checkpoint else 0
        folder.keep_metrics(self.done)
        if folder.resuming:
            screen.note(f"going on behind epoch {self.done} of {epochs}")

    def add(self, epoch: Epoch) -> None:
        """One more epoch is done."""
        self.done = epoch.epoch
        self.folder.add_metrics(_record(epoch))
        self._draw()
        held_out = "" if epoch.validation is None else f", validation {epoch.validation:.2%}"
        right = f"train {epoch.accuracy:.2%}{held_out}"
        self.screen.note(f"epoch {epoch.epoch}/{self.epochs}: loss {epoch.loss:.4f}, {right}, {epoch.seconds:.1f} s")

    def complete(self, epochs: Sequence[Epoch]) -> None:
        """Add the line of an epoch whose checkpoint was written just before the run was cut off."""
        for epoch in epochs[len(self.folder.metrics()) :]:
            self.folder.add_metrics(_record(epoch))
        self._draw()

    def _draw(self) -> None:
        """The curves so far."""
        write_text(self.folder / run_folder.CURVES, curves_svg(self.folder.metrics()))


def _record(epoch: Epoch) -> dict[str, Any]:
    return {
        "epoch": epoch.epoch,
        "loss": epoch.loss,
        "train_accuracy": epoch.accuracy,
        "validation_accuracy": epoch.validation,
        "lr": epoch.lr,
        "samples": epoch.samples,
        "seconds": round(epoch.seconds, 3),
        **({"terms": dict(epoch.terms)} if epoch.terms else {}),
    }


def _how_to_go_on(folder: RunFolder, done: int, epochs: int) -> str:
    assert folder.config is not None
    kept = f"{done} of {epochs} epochs are kept in {folder.path}" if done else "no epoch was finished"
    return f"interrupted; {kept}. Go on with\n  {folder.config.command_line} --resume"

"""`fit`: train (or train on, quantized) with progress, checkpoints and exact resume."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.nn.reset import reset_states
from spikequant.nn.schedule import advance_schedules
from spikequant.training.checkpoint import load_checkpoint, save_checkpoint
from spikequant.training.evaluate import Batches, Forward, called, evaluate, layerwise, pairs, segmented
from spikequant.training.history import Epoch, FitResult

Loss = Callable[[Tensor, Tensor], Tensor]


def fit(
    model: nn.Module,
    batches: Batches,
    *,
    epochs: int = 5,
    lr: float = 1e-3,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss = F.cross_entropy,
    validation: Batches | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = True,
    schedule: str = "cosine",
    segment: int | None = None,
    quiet: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> FitResult:
    """Train `model` on ``(input, target)`` batches.

    With `checkpoint` every epoch is written to that file (safetensors: weights, optimizer,
    random state, history); called again with the same arguments, training goes on behind
    the last finished epoch and ends with the same weights as without the interruption, if
    `batches` has ``set_epoch`` or an order of its own.

    Ctrl-C ends the training and does not raise: the result holds the epochs so far and
    ``interrupted=True``, and model and optimizer go back to the end of the last finished
    epoch (to what they came with, if there is none), so that history, weights and
    checkpoint belong together.  A half-done epoch is lost.

    Args:
        model: ordinary module, real or quantized and not frozen.
        batches: re-iterable of ``(input, target)``.
        epochs: passes over `batches` in all.
        lr: learning rate of Adam, if no `optimizer` is given.
        optimizer: any torch optimizer over the model's parameters.
        loss: ``(output, target) -> scalar``.
        validation: batches whose accuracy is measured after each epoch.
        checkpoint: file to write and resume from.
        resume: False starts anew although the file is there.
        schedule: ``"cosine"`` (step by step, to 1 % of the rate) or ``"constant"``.
        segment: time steps whose activations are kept at a time (checkpointing over time): the memory of a step grows
            with the segment, not with the number of steps, and each segment is computed twice.  Gradients are the same.
        quiet: no progress bar.
        on_epoch: called with every finished `Epoch`.

    Raises:
        DataError: an empty loader, data that are not finite, or targets that the loss cannot take.
        ArtifactError: the checkpoint cannot be read or written.
        CaptureError: `segment` is given and something in the model looks over the border of a segment.
    """
    if schedule not in ("cosine", "constant"):
        raise DataError(f"fit: schedule {schedule!r}; expected 'cosine' or 'constant'")
    if epochs < 0 or not 0 <= lr < math.inf:
        raise DataError(f"fit: epochs={epochs}, lr={lr}; expected 0 or more")
    run = layerwise(model, batches) if segment is None else segmented(model, batches, segment)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise DataError("fit: the model has no parameter to train; a frozen model is integers for good")
    optimizer = optimizer if optimizer is not None else torch.optim.Adam(parameters, lr=lr)
    rates = _Schedule(tuple(group["lr"] for group in optimizer.param_groups), schedule == "cosine", epochs)
    history: list[Epoch] = []
    if checkpoint is not None and resume and Path(checkpoint).exists():
        history = load_checkpoint(Path(checkpoint), model, optimizer)
    kept, interrupted = _Kept(model, optimizer, history), False
    try:
        with _bar(quiet) as progress:
            for number in range(len(history), epochs):
                done = _epoch(model, run, batches, optimizer, loss, number, rates, progress)
                accuracy = None if validation is None else evaluate(model, validation).accuracy
                kept.take([*kept.history, replace(done, validation=accuracy)])
                if checkpoint is not None:
                    save_checkpoint(Path(checkpoint), model, optimizer, kept.history)
                if on_epoch is not None:
                    on_epoch(kept.history[-1])
    except KeyboardInterrupt:
        kept.give_back()
        interrupted = True
        if not quiet:
            Console(stderr=True).print(f"fit: interrupted; the weights are those after epoch {len(kept.history)}")
    rates.apply(optimizer, 0.0)  # a second training starts with the rate that was given
    return FitResult(tuple(kept.history), interrupted)


class _Kept:
    """The end of the last finished epoch, to return to when the next one is interrupted."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch]) -> None:
        self.model, self.optimizer = model, optimizer
        self.take(history)

    def take(self, history: list[Epoch]) -> None:
        """Remember weights, optimizer and history of now; in one assignment, since Ctrl-C may come between two."""
        weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.kept = weights, copy.deepcopy(self.optimizer.state_dict()), history

    @property
    def history(self) -> list[Epoch]:
        """The finished epochs."""
        return self.kept[2]

    def give_back(self) -> None:
        """Return to it."""
        self.model.load_state_dict(self.kept[0])
        self.optimizer.load_state_dict(self.kept[1])
        reset_states(self.model)


@dataclass(frozen=True)
class _Schedule:
    """Learning rates over the whole training: cosine down to 1 % of the start, or constant."""

    rates: tuple[float, ...]
    cosine: bool
    epochs: int

    def apply(self, optimizer: torch.optim.Optimizer, done: float) -> None:
        """Set the rates after `done` epochs, a fraction within an epoch."""
        share = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done / self.epochs, 1.0))) if self.cosine else 1.0
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share


def _epoch(
    model: nn.Module,
    run: Forward,
    batches: Batches,
    optimizer: Any,
    loss: Loss,
    number: int,
    rates: _Schedule,
    progress: Progress,
) -> Epoch:
    started = time.perf_counter()
    if hasattr(batches, "set_epoch"):
        batches.set_epoch(number)
    model.train()
    total, right, count = 0.0, 0, 0
    length = len(batches) if isinstance(batches, Sized) else None
    task = progress.add_task(f"epoch {number + 1}/{rates.epochs}", total=length, loss=float("nan"))
    for step, (x, y) in enumerate(pairs(batches)):
        done = number + (step / length if length else 0.0)
        rates.apply(optimizer, done)
        advance_schedules(model, done, rates.epochs)
        reset_states(model)
        optimizer.zero_grad(set_to_none=True)
        output = called(run, x)
        value = _loss(loss, output, y)
        if not bool(torch.isfinite(value)):
            raise DataError(
                f"fit: the loss is {float(value.detach())} in epoch {number + 1}; "
                "check the data for NaN, or lower the learning rate"
            )
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(value.detach()) * len(y)
        right += int((output.detach().argmax(-1) == y).sum()) if output.dim() == 2 else 0
        count += len(y)
        progress.update(task, advance=1, loss=total / count)
    progress.remove_task(task)
    reset_states(model)
    if count == 0:
        raise DataError("fit: the loader gave no batch; expected at least one (input, target)")
    return Epoch(
        epoch=number + 1,
        loss=total / count,
        accuracy=right / count,
        lr=optimizer.param_groups[0]["lr"],
        samples=count,
        seconds=time.perf_counter() - started,
    )


def _loss(loss: Loss, output: Tensor, y: Tensor) -> Tensor:
    try:
        value = loss(output, y)
    except (RuntimeError, ValueError, IndexError) as error:
        raise DataError(
            f"fit: the loss cannot take scores of shape {tuple(output.shape)} and targets of shape {tuple(y.shape)}, "
            f"{y.dtype}: {error}; the default loss expects scores [N, classes] and class numbers [N], int64"
        ) from error
    if not value.requires_grad:
        raise DataError(
            "fit: the loss depends on no parameter; a frozen model is integers for good, train before freeze"
        )
    return value


def _bar(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        disable=quiet,
        transient=True,
    )

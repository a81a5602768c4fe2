"""`fit`: train (or train on, quantized) with progress, checkpoints and exact resume."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.nn.reset import reset_states
from spikequant.training.checkpoint import Training, load_checkpoint, save_checkpoint
from spikequant.training.engine import Engine, Loss, Rates, runner_over_time
from spikequant.training.evaluate import Batches, layerwise, segmented
from spikequant.training.history import Epoch, FitResult
from spikequant.training.precision import Precision
from spikequant.training.processes import Processes
from spikequant.training.routines import Routine
from spikequant.training.schedules import Schedule, schedule_of
from spikequant.training.step import LossTerm


def fit(
    model: nn.Module,
    batches: Batches,
    *,
    epochs: int = 5,
    lr: float = 1e-3,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss | None = F.cross_entropy,
    terms: Sequence[LossTerm] = (),
    routines: Sequence[Routine] = (),
    validation: Batches | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = True,
    schedule: str | Schedule = "cosine",
    amp: str | None = None,
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

    In a process group (``torchrun``, ``torch.distributed.init_process_group``) every batch is divided among the
    processes and figures are gathered; the first one alone writes checkpoints and calls `on_epoch`
    (`spikequant.training.processes`).

    Args:
        model: ordinary module, real or quantized and not frozen.
        batches: re-iterable of ``(input, target)``.
        epochs: passes over `batches` in all.
        lr: learning rate of Adam, if no `optimizer` is given.
        optimizer: any torch optimizer over the model's parameters.
        loss: ``(output, target) -> scalar``; None: the terms alone.
        terms: what is added to it (`LossTerm`): distillation, the temporal loss, ...
        routines: what accompanies the training (`Routine`): averaged weights, frozen scales, falling bits, ...
        validation: batches whose accuracy is measured after each epoch.
        checkpoint: file to write and resume from.
        resume: False starts anew although the file is there.
        schedule: ``"cosine"`` (step by step, to 1 % of the rate), ``"constant"``, ``"restarts"``, or a `Schedule`.
        amp: ``"bfloat16"`` or ``"float16"``: real layers run under autocast; integer sums stay exact.
        segment: time steps whose activations are kept at a time (checkpointing over time): the memory of a step grows
            with the segment, not with the number of steps, and each segment is computed twice.  Gradients are the same.
        quiet: no progress bar.
        on_epoch: called with every finished `Epoch`.

    Raises:
        DataError: an empty loader, data that are not finite, targets that the loss cannot take, or a setting that
            fits neither model nor training.
        ArtifactError: the checkpoint cannot be read or written.
        CaptureError: `segment` is given and something in the model looks over the border of a segment.
    """
    rule = schedule_of(schedule)
    _check_numbers(epochs, lr, optimizer)
    _check_terms(loss, terms, routines, segment)
    run = layerwise(model, batches) if segment is None else segmented(model, batches, segment)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise DataError("fit: the model has no parameter to train; a frozen model is integers for good")
    optimizer = optimizer if optimizer is not None else torch.optim.Adam(parameters, lr=lr)
    rates = Rates(tuple(group["lr"] for group in optimizer.param_groups), rule, epochs)
    processes = Processes.current()
    processes.start_alike(model)
    for term in terms:
        term.prepare(model)
    engine = Engine(
        model, run, optimizer, loss, rates, Precision(amp, parameters[0].device.type), tuple(terms), tuple(routines),
        runner_over_time(model, batches, terms), processes,
    )  # fmt: skip
    for routine in routines:
        routine.begin(model, epochs)
    training = Training(model=model, optimizer=optimizer, precision=engine.precision, routines=engine.routines,
                        processes=processes)  # fmt: skip
    target = None if checkpoint is None else Path(checkpoint)
    try:
        history = _resumed(target, training) if processes.same_object(target is not None and resume) else []
        kept = _Kept(training, history)
        interrupted = False
        try:
            with _bar(quiet or not processes.writes) as progress:
                for number in range(len(history), epochs):
                    _finish_epoch(kept, engine.epoch(number, batches, progress), validation, target, on_epoch)
        except KeyboardInterrupt:
            kept.give_back()
            interrupted = True
            if not quiet:
                Console(stderr=True).print(f"fit: interrupted; the weights are those after epoch {len(kept.history)}")
    finally:
        for routine in routines:
            routine.end(model)
        rates.restore(optimizer)
    return FitResult(tuple(kept.history), interrupted)


def _resumed(path: Path | None, training: Training) -> list[Epoch]:
    """The history of a checkpoint, if there is one; of several processes only the first needs to see the file."""
    mine = path if training.processes.writes and path is not None and path.exists() else None
    if training.processes.size == 1:
        return [] if mine is None else load_checkpoint(mine, training)
    content = training.processes.same_object(None if mine is None else mine.read_bytes())
    if content is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "checkpoint.safetensors"
        copied.write_bytes(content)
        return load_checkpoint(copied, training)


def _check_numbers(epochs: int, lr: float | Tensor, optimizer: torch.optim.Optimizer | None) -> None:
    counts = isinstance(epochs, Integral) and epochs >= 0
    rates = isinstance(lr, (Real, Tensor)) and 0 <= float(lr) < math.inf
    if not (counts and rates):
        raise DataError(f"fit: epochs={epochs!r}, lr={lr!r}; expected a whole number and a rate, 0 or more")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise DataError(
            f"fit: optimizer is {optimizer!r}; expected an optimizer over the model's parameters, such as "
            "torch.optim.Adam(model.parameters())"
        )


def _check_terms(
    loss: Loss | None, terms: Sequence[LossTerm], routines: Sequence[Routine], segment: int | None
) -> None:
    for owner, given, kind in (("terms", terms, LossTerm), ("routines", routines, Routine)):
        if not isinstance(given, Sequence):
            raise DataError(f"fit: {owner} is {type(given).__name__}; expected a list: {owner}=[...]")
        wrong = next((one for one in given if not isinstance(one, kind)), None)
        if wrong is not None:
            raise DataError(f"fit: {owner} holds {wrong!r}; expected objects of spikequant.training.{kind.__name__}")
    if loss is not None and not callable(loss):
        raise DataError(f"fit: loss is {loss!r}; expected a function (output, target), or None with terms")
    if loss is None and not terms:
        raise DataError("fit: loss is None and there are no terms; expected something to make smaller")
    watching = [term.name for term in terms if term.watches]
    if segment is not None and watching:
        raise DataError(
            f"fit: {watching[0]} looks at all steps of time, segment={segment} keeps only some; leave one of them out"
        )


def _finish_epoch(
    kept: _Kept,
    done: Epoch,
    validation: Batches | None,
    checkpoint: Path | None,
    on_epoch: Callable[[Epoch], None] | None,
) -> None:
    """Validation, checkpoint and callback; validation and callback see the model as it will be given away."""
    model = kept.training.model
    if validation is not None:
        with _shown(kept.training):
            done = replace(done, validation=kept.training.processes.accuracy(model, validation))
    kept.take([*kept.history, done])
    if checkpoint is not None:
        save_checkpoint(checkpoint, kept.training, kept.history)
    if on_epoch is not None and kept.training.processes.writes:
        with _shown(kept.training):
            on_epoch(done)


@contextlib.contextmanager
def _shown(training: Training) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for routine in training.routines:
            stack.enter_context(routine.shown(training.model))
        yield


class _Kept:
    """The end of the last finished epoch, to return to when the next one is interrupted."""

    def __init__(self, training: Training, history: list[Epoch]) -> None:
        self.training = training
        self.take(history)

    def take(self, history: list[Epoch]) -> None:
        """Remember weights, optimizer and history of now; in one assignment, since Ctrl-C may come between two."""
        model, optimizer, routines = self.training.model, self.training.optimizer, self.training.routines
        weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        states = [{k: v.detach().clone() for k, v in routine.state().items()} for routine in routines]
        self.kept = weights, copy.deepcopy(optimizer.state_dict()), history, states

    @property
    def history(self) -> list[Epoch]:
        """The finished epochs."""
        return self.kept[2]

    def give_back(self) -> None:
        """Return to it."""
        model = self.training.model
        model.load_state_dict(self.kept[0])
        self.training.optimizer.load_state_dict(self.kept[1])
        for routine, state in zip(self.training.routines, self.kept[3], strict=True):
            routine.restore(model, state)
        reset_states(model)


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

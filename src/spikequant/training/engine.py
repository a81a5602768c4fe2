"""One epoch of training: forward, loss and its terms, backward, step."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.nn.reset import count_samples_from, reset_states
from spikequant.nn.schedule import advance_schedules
from spikequant.training.evaluate import Batches, Forward, called, check_batch, iter_again, pairs
from spikequant.training.history import Epoch
from spikequant.training.precision import Precision
from spikequant.training.processes import ALONE, Processes, Share
from spikequant.training.routines import Routine
from spikequant.training.schedules import Schedule
from spikequant.training.step import LossTerm, Step
from spikequant.training.watch import OverTimeRunner, SpikeWatch

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rates:
    """Learning rates over the whole training: what the optimizer came with, times the schedule."""

    rates: tuple[float, ...]
    schedule: Schedule
    epochs: int

    def apply(self, optimizer: torch.optim.Optimizer, done: float) -> None:
        """Set the rates after `done` epochs, a fraction within an epoch."""
        share = self.schedule.share(done, self.epochs)
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """The rates that were given: a second training starts with them."""
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate


@dataclass
class Engine:
    """What an epoch needs; `loss` None leaves the terms alone."""

    model: nn.Module
    run: Forward
    optimizer: Any
    loss: Loss | None
    rates: Rates
    precision: Precision
    terms: Sequence[LossTerm] = ()
    routines: Sequence[Routine] = ()
    over_time: OverTimeRunner | None = None
    processes: Processes = ALONE

    @property
    def names(self) -> list[str]:
        """Names of the terms; those that stand twice are numbered."""
        found: list[str] = []
        for term in self.terms:
            found.append(_free(term.name, found))
        return found

    def watched(self) -> contextlib.AbstractContextManager[SpikeWatch | None]:
        """The spikes, where a term looks at them."""
        if any("spikes" in term.watches for term in self.terms):
            return SpikeWatch(self.model)
        return contextlib.nullcontext()

    def epoch(self, number: int, batches: Batches, progress: Progress) -> Epoch:
        """All batches once."""
        started = time.perf_counter()
        for counting in (batches, getattr(batches, "sampler", None)):
            set_epoch = getattr(counting, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(number)
        self.model.train()
        for routine in self.routines:
            routine.before_epoch(self.model, number, self.rates.epochs)
        length = len(batches) if isinstance(batches, Sized) else None
        task = progress.add_task(f"epoch {number + 1}/{self.rates.epochs}", total=length, loss=float("nan"))
        sums = _Sums()
        with self.watched() as watch:
            for k, (x, y) in enumerate(pairs(batches)):
                share = self.processes.share(x, y, batches)
                self._step(share, number + (k / length if length else 0.0), watch, sums)
                progress.update(task, advance=1, loss=sums.loss / max(sums.samples, 1))
        progress.remove_task(task)
        reset_states(self.model)
        count_samples_from(self.model, 0)
        self.processes.average_buffers(self.model)
        sums.gather(self.processes, self.names)
        if sums.samples == 0:
            raise DataError("fit: the loader gave no batch; expected at least one (input, target)")
        return Epoch(
            epoch=number + 1,
            loss=sums.loss / sums.samples,
            accuracy=sums.right / sums.samples,
            lr=self.optimizer.param_groups[0]["lr"],
            samples=sums.samples,
            seconds=time.perf_counter() - started,
            terms={name: total / sums.samples for name, total in sums.terms.items()},
        )

    def _step(self, share: Share, done: float, watch: SpikeWatch | None, sums: _Sums) -> None:
        self.rates.apply(self.optimizer, done)
        advance_schedules(self.model, done, self.rates.epochs)
        reset_states(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        parts: dict[str, float] = {}
        if len(share.y):
            count_samples_from(self.model, share.first)
            with self.precision.forward():
                step = self._forward(share.x, share.y, done, watch)
                value, parts = self._total(step)
            loss = float(value.detach())
            self.precision.backward(value * share.part if self.processes.size > 1 else value)
            sums.add(step, loss, parts)
        self._check_finite(loss, parts, share, done)
        self.processes.sum_gradients([p for group in self.optimizer.param_groups for p in group["params"]])
        self.precision.step(self.optimizer)
        for routine in self.routines:
            routine.after_step(self.model, done, self.rates.epochs)

    def _check_finite(self, loss: float, parts: dict[str, float], share: Share, done: float) -> None:
        """All processes stop where one has a loss that is none, before anything moves."""
        total = loss
        if self.processes.size > 1:
            total = float(self.processes.sum_(torch.tensor([loss], device=share.x.device)))
        if not math.isfinite(total):
            named = ", ".join(f"{name} {part:.4g}" for name, part in parts.items())
            raise DataError(
                f"fit: the loss is {total}{f' ({named})' if named else ''} in epoch {int(done) + 1}; "
                "check the data for NaN, or lower the learning rate"
            )

    def _forward(self, x: Tensor, y: Tensor, done: float, watch: SpikeWatch | None) -> Step:
        outputs = None
        if self.over_time is None:
            output = called(self.run, x)
        else:
            check_batch(x)
            output, outputs = self.over_time(x)
        spikes = {} if watch is None else watch.take()
        return Step(
            model=self.model, x=x, target=y, output=output, spikes=spikes, outputs=outputs, done=done,
            epochs=self.rates.epochs,
        )  # fmt: skip

    def _total(self, step: Step) -> tuple[Tensor, dict[str, float]]:
        """The loss with its terms, and each term by its name, without its weight."""
        values = [] if self.loss is None else [main_loss(self.loss, step.output, step.target)]
        parts: dict[str, float] = {}
        for name, term in zip(self.names, self.terms, strict=True):
            part = term.of(step)
            parts[name] = float(part.detach())
            values.append(term.weight * part)
        total = values[0] if len(values) == 1 else torch.stack([v.to(values[0]) for v in values]).sum()
        if not total.requires_grad:
            raise DataError(
                "fit: the loss depends on no parameter; a frozen model is integers for good, train before freeze"
            )
        return total, parts


@dataclass
class _Sums:
    loss: float = 0.0
    right: int = 0
    samples: int = 0
    terms: dict[str, float] = field(default_factory=dict)

    def add(self, step: Step, loss: float, parts: dict[str, float]) -> None:
        """One more batch."""
        count = len(step.target)
        self.loss += loss * count
        if step.output.dim() == 2:
            self.right += int((step.output.detach().argmax(-1) == step.target).sum())
        self.samples += count
        for name, part in parts.items():
            self.terms[name] = self.terms.get(name, 0.0) + part * count

    def gather(self, processes: Processes, names: Sequence[str]) -> None:
        """Figures of all processes."""
        if processes.size == 1:
            return
        own = [self.loss, float(self.right), float(self.samples), *(self.terms.get(name, 0.0) for name in names)]
        total = processes.sum_(torch.tensor(own, dtype=torch.float64, device=processes.device)).tolist()
        self.loss, self.right, self.samples = total[0], int(total[1]), int(total[2])
        self.terms = dict(zip(names, total[3:], strict=True))


def main_loss(loss: Loss, output: Tensor, y: Tensor) -> Tensor:
    """The loss of a batch, or a clear word about what it cannot take."""
    try:
        return loss(output, y)
    except (RuntimeError, ValueError, IndexError) as error:
        raise DataError(
            f"fit: the loss cannot take scores of shape {tuple(output.shape)} and targets of shape {tuple(y.shape)}, "
            f"{y.dtype}: {error}; the default loss expects scores [N, classes] and class numbers [N], int64"
        ) from error


def runner_over_time(model: nn.Module, batches: Batches, terms: Sequence[LossTerm]) -> OverTimeRunner | None:
    """What gives the answer at every step of time, where a term looks at it.

    Raises:
        DataError: `batches` cannot be read twice.
        CaptureError: the model has no such answer.
    """
    if not any("outputs" in term.watches for term in terms):
        return None
    first: Iterator[tuple[Tensor, Tensor]] = pairs(batches) if iter_again(batches) else iter(())
    row = next(first, None)
    if row is None:
        raise DataError("fit: a term looks at the answer over time, which needs batches that can be read again")
    return OverTimeRunner(model, row[0])


def _free(name: str, taken: Sequence[str]) -> str:
    """`name`, numbered where a term of that name stands already."""
    if name not in taken:
        return name
    return next(f"{name} {k}" for k in range(2, len(taken) + 3) if f"{name} {k}" not in taken)


__all__ = ["Engine", "Loss", "Rates", "main_loss", "runner_over_time"]

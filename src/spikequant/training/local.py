"""Learning layer by layer from local losses (DECOLLE): no back-propagation through time or through layers.

    r_l[t] = G_l S_l[t],   L[t] = sum_l SmoothL1(r_l[t], one_hot(y))

``G_l`` are fixed random readouts.  Inputs and states of earlier steps are constants; what a weight did in all earlier
steps is in the eligibility ``P`` of its layer (`nn.eligibility`), so one step's gradient is enough.
Source: Kaiser, Mostafa, Neftci 2020 (DECOLLE); Lui, Neftci 2021, and its code.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.law.errors import DataError, Unsupported
from spikequant.models.decolle import random_readout
from spikequant.nn import QuantizedNeuron, Synapse
from spikequant.nn.eligibility import TrainingForm
from spikequant.nn.over_time import OverTime
from spikequant.nn.quantized_eligibility import QuantizedTrainingForm
from spikequant.nn.schedule import advance_schedules
from spikequant.training.checkpoint import Training, load_checkpoint, save_checkpoint
from spikequant.training.evaluate import Batches, check_batch, pairs
from spikequant.training.history import Epoch, FitResult
from spikequant.training.parameter_groups import parameter_groups
from spikequant.training.precision import Precision

BETAS = (0.0, 0.95)
"""Of Adam, as in the paper's code: an update a step, without momentum."""


@runtime_checkable
class Staged(Protocol):
    """A chain of layers that can learn locally, such as `models.Decolle`."""

    readout: nn.Linear | Synapse

    def stages(self) -> list[tuple[nn.Module, nn.Module]]:
        """Synapse and neurons of each layer, from the input on."""
        ...


@dataclass(frozen=True)
class LocalStep:
    """One layer at one step: its membrane (with a graph to its weights), spikes, readout."""

    layer: int
    membrane: Tensor
    spikes: Tensor
    scores: Tensor


class LocalRun:
    """A network in its training form, with its readouts.

    Args:
        model: of one-state neurons, real or quantized (with synapses too, and not frozen).
        seed: of the readouts of all layers but the last, whose is the network's own.

    Raises:
        Unsupported: a model without stages, or with other neurons.
    """

    def __init__(self, model: nn.Module, seed: int = 0) -> None:
        if not isinstance(model, Staged):
            raise Unsupported(
                f"local learning needs a model with stages() and a readout, such as models.Decolle; got "
                f"{type(model).__name__}"
            )
        self.model, self.seed = model, seed
        self.forms = [_form(_synapse(synapse), neuron) for synapse, neuron in model.stages()]
        self.readouts: dict[int, Tensor] = {}

    @property
    def classes(self) -> int:
        """Scores of every readout."""
        return int(self.model.readout.weight.shape[0])

    def reset(self) -> None:
        """Back to rest, before a new batch."""
        for form in self.forms:
            form.reset()

    def step(self, x: Tensor, *, perturbed: bool = False) -> Iterator[LocalStep]:
        """Every layer at one step of input ``[N, ...]``, in order; `perturbed` as in `TrainingForm.step`."""
        for k, form in enumerate(self.forms):
            membrane, spikes = form.step(x, perturbed=perturbed)
            yield LocalStep(k, membrane, spikes, F.linear(spikes.flatten(1), self._readout(k, spikes)))
            x = spikes.detach()

    def _readout(self, k: int, spikes: Tensor) -> Tensor:
        if k == len(self.forms) - 1:
            return self._own_readout()
        if k not in self.readouts:
            generator = torch.Generator().manual_seed(1_000 * self.seed + k)
            found = random_readout(spikes[0].numel(), self.classes, generator)
            self.readouts[k] = found.to(spikes)
        return self.readouts[k]

    @torch.no_grad()
    def _own_readout(self) -> Tensor:
        readout = self.model.readout
        if isinstance(readout, Synapse):
            return readout.codes() * readout.current_scale().to(readout.weight)
        return readout.weight.detach()


def _form(synapse: nn.Module, neuron: nn.Module) -> TrainingForm | QuantizedTrainingForm:
    made = QuantizedTrainingForm if isinstance(neuron, QuantizedNeuron) else TrainingForm
    return made(synapse, neuron)


def _synapse(module: nn.Module) -> nn.Module:
    return module.layer if isinstance(module, OverTime) else module


def fit_local(
    model: nn.Module,
    batches: Batches,
    *,
    epochs: int = 5,
    lr: float = 1e-3,
    burn_in: int = 0,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
) -> FitResult:
    """Train a network of one-state neurons by local losses, an update at every step.

    With `checkpoint` every epoch is written to that file, and a second call goes on behind the last finished one, as
    `fit` does; Ctrl-C raises, and the file holds what was finished.

    Args:
        model: `models.Decolle`, or another with `stages()` and a readout; real or quantized, not frozen.
        batches: ``([T, N, ...], classes [N])``.
        epochs: passes over `batches` in all.
        lr: of Adam; learned scales of quantizers move at a fiftieth of it (`parameter_groups`).
        burn_in: steps at the start without an update.
        seed: of the fixed random readouts of the layers but the last; `local_hessian_trace` wants the same.
        checkpoint: file to write and go on from.

    Returns:
        Loss per step and layer, accuracy of the last layer's readout while the weights moved, by epoch.

    Raises:
        Unsupported: a model that cannot learn so.
        DataError: no batch, data that are not finite, samples no longer than `burn_in`.
        ArtifactError: the checkpoint cannot be read or written.
    """
    run = LocalRun(model, seed)
    optimizer = torch.optim.Adam(parameter_groups(model, lr), lr=lr, betas=BETAS)
    training = Training(model=model, optimizer=optimizer, precision=Precision(None, "cpu"))
    history: list[Epoch] = []
    if checkpoint is not None and Path(checkpoint).exists():
        history = load_checkpoint(Path(checkpoint), training)
    model.train()
    for number in range(len(history), epochs):
        if hasattr(batches, "set_epoch"):
            batches.set_epoch(number)
        history = [*history, _epoch(run, batches, optimizer, number, epochs=epochs, burn_in=burn_in)]
        if checkpoint is not None:
            save_checkpoint(Path(checkpoint), training, history)
    return FitResult(tuple(history))


def _epoch(
    run: LocalRun, batches: Batches, optimizer: torch.optim.Optimizer, number: int, *, epochs: int, burn_in: int
) -> Epoch:
    started = time.perf_counter()
    total, right, count = 0.0, 0, 0
    length = len(batches) if isinstance(batches, Sized) else None
    for k, (x, y) in enumerate(pairs(batches)):
        advance_schedules(run.model, number + (k / length if length else 0.0), epochs)
        loss, hits = _batch(run, x, y, optimizer, burn_in)
        total, right, count = total + loss * len(y), right + hits, count + len(y)
    if not count:
        raise DataError("fit_local: the loader gave no batch; expected at least one (input, target)")
    return Epoch(
        epoch=number + 1, loss=total / count, accuracy=right / count, lr=optimizer.param_groups[0]["lr"],
        samples=count, seconds=time.perf_counter() - started,
    )  # fmt: skip


def _batch(run: LocalRun, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, burn_in: int) -> tuple[float, int]:
    """Mean loss of a step and layer, and how many samples came out right."""
    check_steps(x, burn_in)
    wanted = F.one_hot(y, run.classes).to(x.dtype)
    run.reset()
    total, scores = 0.0, torch.zeros_like(wanted)
    for t, frame in enumerate(x):
        learns = t >= burn_in
        with torch.set_grad_enabled(learns):
            steps = list(run.step(frame))
            loss = torch.stack([F.smooth_l1_loss(one.scores, wanted) for one in steps]).sum()
        scores += steps[-1].scores.detach()
        if learns:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach())
    if not total < float("inf"):
        raise DataError(f"fit_local: the loss is {total}; lower the learning rate")
    return total / (len(x) - burn_in) / len(run.forms), int((scores.argmax(1) == y).sum())


def check_steps(x: Tensor, burn_in: int) -> None:
    """Raise `DataError` on data that are not finite, or have no step behind the burn-in."""
    check_batch(x)
    if not 0 <= burn_in < len(x):
        raise DataError(f"burn_in = {burn_in}; expected 0 to {len(x) - 1} for samples of {len(x)} steps")

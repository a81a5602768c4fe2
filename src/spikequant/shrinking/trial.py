"""One trial: quantize a copy, calibrate, perhaps train on, freeze, and measure on the held-out data."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.analyse import Observation, memory_rows, observe, paired_difference
from spikequant.law.errors import DataError, WidthError
from spikequant.measure import emd, flash_bits, network_emd, ram_bits
from spikequant.plan import Plan
from spikequant.quantize import QuantizeReport, calibrate, freeze, quantize_
from spikequant.shrinking.ladder import Ladder, Roles, Rung, Scheme, plan_for
from spikequant.shrinking.result import Trial
from spikequant.training import Loss, fit
from spikequant.training.held_out import Batch, at_first_epoch, length_of

Tick = Callable[[int, int | None], None]
"""``(batches done, batches in all)`` while a trial trains."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What is to be tried."""

    rung: Rung
    scheme: Scheme
    relief: dict[str, int] = field(default_factory=dict)
    signed: bool = True

    def __str__(self) -> str:
        parts = [f"{self.rung} {self.scheme.upper()}"]
        parts += [] if self.signed else ["unsigned membranes"]
        parts += [f"{path} at {bits} bits" for path, bits in self.relief.items()]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What every trial starts from."""

    reference: nn.Module
    roles: Roles
    ladder: Ladder
    example: Tensor
    sample_axis: int
    learn: Iterable[Batch]
    decide: Iterable[Batch]
    before: Observation
    epochs: int
    lr: float
    loss: Loss
    seed: int

    def plan(self, attempt: Attempt) -> Plan:
        """The plan of an attempt."""
        return plan_for(
            self.roles, attempt.rung, attempt.scheme, relief=attempt.relief, signed=attempt.signed, seed=self.seed
        )

    def bits_of(self, rung: Rung) -> int:
        """Bits of all weights and of all spiking membranes and currents at a rung: what a step saves."""
        states = sum(
            math.prod(self.before.shapes[path]) * (2 if path in self.roles.currents else 1)
            for path in self.roles.neurons
            if path in self.before.shapes
        )
        return self.roles.weights * rung.weight_bits + states * rung.membrane_bits

    def dressed(self, attempt: Attempt) -> tuple[nn.Module, QuantizeReport]:
        """A quantized copy of the float network."""
        model = copy.deepcopy(self.reference)
        return model, quantize_(model, self.plan(attempt), self.example, quiet=True)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A trial with its network: frozen, and the weights it was frozen from."""

    trial: Trial
    attempt: Attempt
    model: nn.Module | None
    report: QuantizeReport | None
    weights: dict[str, Tensor]


def run_trial(bench: Bench, attempt: Attempt, *, tick: Tick, checkpoint: Path | None = None) -> Tried:
    """Build, calibrate, train where the scheme says so, freeze and measure.

    The random state is that of the seed, so a trial does not depend on the trials before
    it; the caller's random state is untouched.

    Raises:
        DataError: NaN in the data or in the training.
        KeyboardInterrupt: the training was interrupted; a checkpoint keeps its finished epochs.
    """
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        try:
            model, report = bench.dressed(attempt)
            calibrate(model, at_first_epoch(bench.learn))
            if attempt.scheme == "qat":
                _train(bench, model, tick, checkpoint)
            weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
            freeze(model)
        except (WidthError, _Diverged) as error:
            refused = _trial(attempt, verdict=f"refused: {error}", seconds=time.perf_counter() - started)
            return Tried(trial=refused, attempt=attempt, model=None, report=None, weights={})
        found = observe(model, bench.decide, operations=False)
    trial = _measured(bench, attempt, model, found, time.perf_counter() - started)
    return Tried(trial=trial, attempt=attempt, model=model, report=report, weights=weights)


def rebuilt(bench: Bench, attempt: Attempt, weights: dict[str, Tensor]) -> tuple[nn.Module, QuantizeReport]:
    """The frozen network of an earlier trial, from its weights."""
    model, report = bench.dressed(attempt)
    model.load_state_dict(weights)
    freeze(model.eval())
    return model, report


class _Diverged(Exception):
    """The loss of a training is no number any more: this trial is lost, not the search."""


class _Counted:
    """Batches that tell how far a training is."""

    def __init__(self, batches: Iterable[Batch], epochs: int, tick: Tick) -> None:
        self.batches, self.epochs, self.tick, self.epoch = batches, epochs, tick, 0

    def __iter__(self) -> Iterator[Batch]:
        length = length_of(self.batches)
        for position, batch in enumerate(self.batches):
            self.tick(self.epoch * (length or 0) + position, None if length is None else self.epochs * length)
            yield batch

    def __len__(self) -> int:
        length = length_of(self.batches)
        if length is None:
            raise TypeError("these batches have no length")
        return length

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)


def _train(bench: Bench, model: nn.Module, tick: Tick, checkpoint: Path | None) -> None:
    counted: Any = _Counted(bench.learn, bench.epochs, tick)
    if length_of(bench.learn) is None:
        counted = bench.learn

    def loss(output: Tensor, target: Tensor) -> Tensor:
        value = bench.loss(output, target)
        if not bool(torch.isfinite(value)):
            raise _Diverged(f"the training diverged to a loss of {float(value.detach())}; lower lr")
        return value

    result = fit(model, counted, epochs=bench.epochs, lr=bench.lr, loss=loss, checkpoint=checkpoint, quiet=True)
    if result.interrupted:
        raise KeyboardInterrupt


def _measured(bench: Bench, attempt: Attempt, model: nn.Module, found: Observation, seconds: float) -> Trial:
    if not all(torch.equal(a, b) for a, b in zip(bench.before.targets, found.targets, strict=True)):
        raise DataError("shrink: the targets changed between two passes over validation; use a fixed order")
    difference, interval = paired_difference(bench.before.right, found.right)
    distances = {p: emd(bench.before.firing[p].rates(), f.rates()) for p, f in found.firing.items()}
    silent = [p for p, f in found.firing.items() if not f.rates().any() and bench.before.firing[p].rates().any()]
    flash, ram = _bytes(model, found)
    return _trial(
        attempt,
        accuracy=float(found.right.mean()),
        drop=0.0 - difference,
        interval=interval,
        emd=network_emd(distances) if distances else float("nan"),
        layer_emd=distances,
        flash_bytes=flash,
        ram_bytes=ram,
        seconds=seconds,
        silent=tuple(silent),
    )


def _bytes(model: nn.Module, seen: Observation) -> tuple[float, float]:
    """Flash and RAM, as `compare` counts them."""
    rows = memory_rows(model, seen.shapes, graph=seen.graph, input_bits=seen.input_bits, steps=seen.steps)
    return flash_bits(rows) / 8, ram_bits(rows) / 8


def _trial(attempt: Attempt, **figures: Any) -> Trial:
    return Trial(
        name=str(attempt),
        scheme=attempt.scheme,
        weight_bits=attempt.rung.weight_bits,
        membrane_bits=attempt.rung.membrane_bits,
        relief=attempt.relief,
        signed=attempt.signed,
        **figures,
    )

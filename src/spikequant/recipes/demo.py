"""The demo: a convolutional spiking network on scikit-learn's digits, from training to verified integers."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spikequant import __version__
from spikequant.analyse import Comparison, compare
from spikequant.data import ArrayBatches, load_digits
from spikequant.law.artifact import network_hash
from spikequant.law.network import IntNet
from spikequant.models import digits_net
from spikequant.plan import Plan
from spikequant.quantize import QuantizeReport, VerifyReport, calibrate, freeze, lower, quantize_, verify
from spikequant.training import Epoch, fit

PIXEL = 1 / 16
FLOAT_EPOCHS, QAT_EPOCHS = 12, 8
CALIBRATION_BATCHES = 4
CALIBRATION, MEASUREMENT = 25, 75
"""About how long they take, in batches of training."""


class Progress(Protocol):
    """Whoever wants to watch."""

    def stage(self, words: str) -> None:
        """The next stage begins."""

    def tick(self, count: int = 1) -> None:
        """So much more is done; `work` says how much there is in all."""

    def epoch(self, network: str, epoch: Epoch) -> None:
        """An epoch of one of the networks is finished."""


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One quantized network of the demo with everything that was measured of it; `stem` names its files."""

    name: str
    stem: str
    plan: Plan
    report: QuantizeReport
    net: IntNet
    comparison: Comparison
    verified: VerifyReport

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.name,
            "stem": self.stem,
            "quantized": self.report.to_dict(),
            "plan": self.plan.to_dict(),
            "sha256": network_hash(self.net),
            "comparison": self.comparison.to_dict(),
            "verify": {
                "neuron_steps": self.verified.neuron_steps,
                "spikes": self.verified.spikes,
                "states": self.verified.states_compared,
                "differences": self.verified.differences,
            },
        }


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found, and the float network that it started from."""

    rows: tuple[DemoRow, ...]
    reference: nn.Module
    seconds: float
    seed: int

    @property
    def seed_floor(self) -> float:
        """EMD between the firing rates of two float networks that differ in their seed alone."""
        return self.rows[0].comparison.seed_floor or 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "version": __version__,
            "torch": torch.__version__,
            "seed": self.seed,
            "seconds": self.seconds,
            "emd_floor_two_seeds": self.seed_floor,
            "rows": [row.to_dict() for row in self.rows],
        }


@dataclass(frozen=True)
class _Watched:
    """Batches that tell `progress` of each one that was used."""

    batches: ArrayBatches
    progress: Progress

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            yield batch
            self.progress.tick()

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on."""
        self.batches.set_epoch(epoch)


def digit_batches(seed: int) -> tuple[ArrayBatches, ArrayBatches]:
    """Training batches (shuffled) and test batches (fixed order) of the embedded digits."""
    data = load_digits()
    train = ArrayBatches(data.train.x, data.train.y, batch_size=64, shuffle=True, seed=seed, scale=PIXEL)
    return train, ArrayBatches(data.test.x, data.test.y, batch_size=90, scale=PIXEL)


def work() -> int:
    """How much `run_demo` has to do, in batches of training and what takes as long."""
    return (2 * FLOAT_EPOCHS + QAT_EPOCHS) * len(digit_batches(0)[0]) + 2 * (CALIBRATION + MEASUREMENT)


def run_demo(progress: Progress, *, seed: int = 0) -> DemoResult:
    """Train, quantize after training (W4/U8) and in training (W2/U4), compare, lower, verify."""
    started = time.perf_counter()
    train, test = digit_batches(seed)
    progress.stage("train a spiking network on 1,437 digits")
    reference = _train_float(train, seed, progress)
    progress.stage("train it again from another seed: how far apart are two float networks?")
    other = _train_float(train, seed + 1, progress)
    bench = _Bench(reference, other, train, test, progress)
    progress.stage("quantize after training: 4-bit weights, 8-bit membranes")
    ptq_plan = Plan.uniform(weight_bits=4, membrane_bits=8, membrane_signed=False)
    ptq = _row(bench, "W4/U8 PTQ", "w4u8", ptq_plan, epochs=0)
    progress.stage("quantize in training: 2-bit weights, 4-bit membranes")
    qat_plan = Plan.uniform(
        weight_bits=2, weight_quantizer="lsq", membrane_bits=4, membrane_signed=False, membrane_rounding="half_up"
    )
    qat = _row(bench, "W2/U4 QAT", "w2u4", qat_plan, epochs=QAT_EPOCHS)
    return DemoResult(rows=(ptq, qat), reference=reference, seconds=time.perf_counter() - started, seed=seed)


@dataclass(frozen=True)
class _Bench:
    """What both quantized networks start from and are compared with."""

    reference: nn.Module
    other: nn.Module
    train: ArrayBatches
    test: ArrayBatches
    progress: Progress


def _train_float(train: ArrayBatches, seed: int, progress: Progress) -> nn.Module:
    torch.manual_seed(seed)
    model = digits_net()
    _fit(model, train, progress, f"float32, seed {seed}", epochs=FLOAT_EPOCHS, lr=4e-3)
    return model


def _fit(model: nn.Module, train: ArrayBatches, progress: Progress, name: str, *, epochs: int, lr: float) -> None:
    def on_epoch(epoch: Epoch) -> None:
        progress.epoch(name, epoch)

    done = fit(model, _Watched(train, progress), epochs=epochs, lr=lr, quiet=True, on_epoch=on_epoch)
    if done.interrupted:
        raise KeyboardInterrupt


def _row(work: _Bench, name: str, stem: str, plan: Plan, *, epochs: int) -> DemoRow:
    example = torch.cat([x for x, _ in work.test])
    model = copy.deepcopy(work.reference)
    report = quantize_(model, plan, example[:32], quiet=True)
    calibrate(model, work.train, max_batches=CALIBRATION_BATCHES)
    work.progress.tick(CALIBRATION)
    if epochs:
        torch.manual_seed(0)
        _fit(model, work.train, work.progress, name, epochs=epochs, lr=2e-3)
    freeze(model)
    comparison = compare(work.reference, model, work.test, other_seed=work.other)
    net = lower(model, example[:32], metadata={"name": name, "plan": plan.to_dict(), "data": "scikit-learn digits"})
    verified = verify(model, net, example)
    work.progress.tick(MEASUREMENT)
    return DemoRow(
        name=name,
        stem=stem,
        plan=plan,
        report=report,
        net=net,
        comparison=comparison,
        verified=verified,
    )

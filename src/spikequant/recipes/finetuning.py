"""Rows that fine-tune: one float network per seed, its quantized copies trained on for a few epochs, and what is kept.

Every copy starts from the same checkpoint, sees the same batches in the same order and is measured beside the float
network on the same test samples, as integers.  A control is trained on as long without quantization: what it moves is
the training's doing, not the bits'.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikequant import data as sets
from spikequant.analyse import Comparison, compare
from spikequant.data.dataset import Batches, DataSet, Split
from spikequant.law.errors import WidthError
from spikequant.plan import Plan
from spikequant.quantize import calibrate, freeze, lower, match_firing, quantize_, verify
from spikequant.recipes.reproduction import Bench, plain_name
from spikequant.training import Epoch, FitResult, evaluate, fit

CHECKPOINT, NETWORK = "float.safetensors", "network.spq"
EXAMPLES = 16
MATCHED = 16
"""Batches whose firing is matched."""
LEVELS = tuple(range(0, 101, 5))
"""Per cent of the neurons at which a row keeps their rates."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is trained, on what, and for how long.

    Attributes:
        data: name of the data set, and ``options`` of its loader (``fold``, ``steps``, ...).
        make: a fresh float network; is given the bench, for one that is read from a file.
        float_epochs, float_lr: the float training (Adam, cosine).
        epochs, lr: what every copy is trained on for.
        split: what is trained on, ``"train"`` or ``"train+validation"``.
        tested_on: the splits that are measured on; none of their samples may be trained on.
        gpu: runs on a GPU where there is one.
        tag: what its checkpoints are called, where a recipe has several courses.
        tuned_on: the copies see the first so many training samples only; None: all.
    """

    data: str
    make: Callable[[Bench], nn.Module]
    float_epochs: int
    epochs: int
    float_lr: float = 3e-3
    lr: float = 1e-3
    split: str = "train"
    tested_on: tuple[str, ...] = ("test",)
    tuned_on: int | None = None
    batch_size: int = 128
    calibration: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)
    tag: str = ""
    gpu: bool = False

    def batches(self, bench: Bench, seed: int) -> tuple[Placed, Placed]:
        """Training batches, shuffled by the seed, and test batches.

        Raises:
            DataError: the data are not there.
        """
        loaded = sets.load(self.data, folder=bench.data_dir, **self.options)
        tests = tuple(loaded.batches(part, batch_size=250) for part in self.tested_on)
        return self._shuffled(loaded, loaded.split(self.split), seed), Placed(tests, self.place())

    def tuning(self, bench: Bench, seed: int) -> Placed:
        """What the copies are trained on."""
        loaded = sets.load(self.data, folder=bench.data_dir, **self.options)
        whole = loaded.split(self.split)
        return self._shuffled(loaded, Split(whole.source, whole.indices[: self.tuned_on]), seed)

    def place(self) -> torch.device:
        """Where it is trained and measured: a GPU if it asks for one and there is one."""
        return torch.device("cuda" if self.gpu and torch.cuda.is_available() else "cpu")

    def _shuffled(self, loaded: DataSet, split: Split, seed: int) -> Placed:
        made = Batches(
            split, batch_axis=loaded.batch_axis, batch_size=self.batch_size, shuffle=True, seed=seed, scale=loaded.scale
        )
        return Placed((made,), self.place())


@dataclass(frozen=True)
class Placed:
    """Batches on a device, one split after the other."""

    parts: tuple[Batches, ...]
    device: torch.device

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((x.to(self.device), y.to(self.device)) for x, y in chain.from_iterable(self.parts))

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next passes."""
        for part in self.parts:
            part.set_epoch(epoch)

    def example(self) -> Tensor:
        """A few samples of the first batch."""
        x: Tensor = next(iter(self))[0]
        axis = self.parts[0].batch_axis
        return x.narrow(axis, 0, min(EXAMPLES, x.shape[axis]))


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A float network and how it was trained."""

    model: nn.Module
    history: tuple[Epoch, ...]


def float_network(bench: Bench, course: Course, seed: int, name: str = "float") -> Trained:
    """The float network of a seed: trained once, then read from its checkpoint.

    Raises:
        KeyboardInterrupt: the training was interrupted.
    """
    torch.manual_seed(seed)
    model = course.make(bench).to(course.place())
    train, _ = course.batches(bench, seed)
    done = _fit(bench, model, train, course.float_epochs, course.float_lr, plain_name(f"{course.tag} {name} {seed}"))
    return Trained(model=model.eval(), history=done.epochs)


def _fit(bench: Bench, model: nn.Module, train: Placed, epochs: int, lr: float, name: str) -> FitResult:
    def said(epoch: Epoch) -> None:
        bench.say(f"  {name}, epoch {epoch.epoch}: loss {epoch.loss:.3f}, {epoch.accuracy:.1%}, {epoch.seconds:.0f} s")

    done = fit(model, train, epochs=epochs, lr=lr, checkpoint=bench.work(name) / CHECKPOINT, quiet=True, on_epoch=said)
    if done.interrupted:
        raise KeyboardInterrupt
    return done


def control_row(bench: Bench, *, course: Course, seed: int, other: int | None = None) -> dict[str, Any]:
    """The float network beside itself, trained on as long as its copies; seed `other` gives the floor of the EMD."""
    seed += bench.seed
    real = float_network(bench, course, seed)
    another = None if other is None else float_network(bench, course, other + bench.seed).model
    train, (_, test) = course.tuning(bench, seed), course.batches(bench, seed)
    model = copy.deepcopy(real.model)
    done = _fit(bench, model, train, course.epochs, course.lr, plain_name(f"{course.tag} control {seed}"))
    found = compare(real.model, model, test, other_seed=another)
    return {
        **figures(found),
        "float_curve": curve(real.history),
        "curve": curve(done.epochs),
        "how": "no quantization, trained on as long",
    }


def quantized_row(
    bench: Bench, *, course: Course, seed: int, name: str, plan: Mapping[str, Any], match: str | None = None
) -> dict[str, Any]:
    """Quantize the float network of a seed by `plan`, calibrate, train on, freeze, and measure both.

    With `match` the training is that of the row of that name (and is not done twice), and behind it thresholds and
    biases are moved until the layers fire as in the float network (`match_firing`).
    """
    seed += bench.seed
    real = float_network(bench, course, seed)
    train, (_, test) = course.tuning(bench, seed), course.batches(bench, seed)
    model = copy.deepcopy(real.model)
    example = test.example()
    report = quantize_(model, Plan.from_dict(plan), example, quiet=True)
    train.set_epoch(0)
    calibrate(model, train, max_batches=course.calibration)
    at_once = evaluate(model, test).accuracy
    called, trained = (plain_name(f"{course.tag} {which} {seed}") for which in (name, match or name))
    done = _fit(bench, model, train, course.epochs, course.lr, trained)
    if match is not None:
        train.set_epoch(0)
        match_firing(model, real.model, train, max_batches=MATCHED)
    frozen = _frozen(model, example, bench.work(called) / NETWORK)
    found = compare(real.model, model, test)
    return {
        **figures(found),
        **frozen,
        "untrained": at_once,
        "curve": curve(done.epochs),
        "plan": Plan.from_dict(plan).to_dict(),
        "notes": list(report.notes),
    }


def _frozen(model: nn.Module, example: Tensor, file: Path) -> dict[str, Any]:
    """Integers, in a file, and that they equal the simulation; a dead layer stays as it is, with the reason."""
    try:
        freeze(model)
    except WidthError as error:
        return {"differences": None, "refused": str(error)}
    here, few = copy.deepcopy(model).cpu(), example.cpu()
    network = lower(here, few)
    network.save(file)
    return {"differences": verify(here, network, few).differences}


def figures(found: Comparison) -> dict[str, Any]:
    """What the table needs of a comparison, JSON-able."""
    real, small = found.reference, found.quantized
    return {
        "before": real.accuracy,
        "after": small.accuracy,
        "interval_points": found.interval,
        "smaller": (real.flash_bytes + real.ram_bytes) / (small.flash_bytes + small.ram_bytes),
        "bytes": [real.flash_bytes + real.ram_bytes, small.flash_bytes + small.ram_bytes],
        "test_samples": found.samples,
        "emd": found.emd,
        "emd_floor": found.floor,
        "seed_floor": found.seed_floor,
        "dead": found.dead,
        "reference_dead": found.reference_dead,
        "silent": found.silent,
        "saturated": found.saturated,
        "layers": [
            {
                "layer": layer.layer, "neurons": layer.neurons, "emd": layer.emd, "floor": layer.floor,
                "rate": layer.rate, "reference_rate": layer.reference_rate, "dead": layer.dead,
                "matched_l1": layer.matched_l1,
                "quantiles": np.percentile(layer.rates, LEVELS).astype(float).tolist(),
                "reference_quantiles": np.percentile(layer.reference_rates, LEVELS).astype(float).tolist(),
            }
            for layer in found.layers
        ],
    }  # fmt: skip


def curve(history: Sequence[Epoch]) -> list[dict[str, float]]:
    """Loss and accuracy of the training, by epoch."""
    return [{"epoch": epoch.epoch, "loss": epoch.loss, "accuracy": epoch.accuracy} for epoch in history]

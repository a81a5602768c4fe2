"""One row of a study: a network learned, quantized while or after, labelled, tested, and weighed."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spikequant.law.errors import PlanError
from spikequant.learn.checkpoint import load_network
from spikequant.learn.config import DiehlCook, Precision, Register
from spikequant.learn.memory import memory
from spikequant.learn.network import Activity, Network
from spikequant.learn.ptq import quantized
from spikequant.learn.training import train
from spikequant.learn.voting import VOTES, Labels, Vote, assign_labels, predict

Scheme = Literal["float", "itq", "ptq"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one row gave; `to_dict` is JSON-able.

    Attributes:
        scheme: ``float``, ``itq`` (quantized while it learns) or ``ptq`` (after).
        precision: registers by role.
        neurons, epochs, seed: of the network and its training.
        trained_on, labelled_on, tested_on: numbers of images.
        accuracy: by vote.
        correct: per test image under the first vote, for paired intervals; a string of 0 and 1.
        memory_bits, inference_bits: what it holds while it learns, and to infer.
        memory_by_part: the same by what it is.
        saving, inference_saving: times less than float.
        spikes: per test image.
        silent_neurons: share of neurons that never fired while labels were assigned.
        seconds: by phase.
    """

    scheme: Scheme
    precision: dict[str, Any]
    neurons: int
    epochs: int
    seed: int
    trained_on: int
    labelled_on: int
    tested_on: int
    accuracy: dict[str, float]
    correct: str
    memory_bits: int
    inference_bits: int
    memory_by_part: dict[str, int]
    saving: float
    inference_saving: float
    spikes: float
    silent_neurons: float
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record."""
        return dataclasses.asdict(self)


def precision_of(
    *,
    weight: int | None = None,
    membrane: int | None = None,
    threshold: int | None = None,
    trace: int | None = None,
    rounding: str = "SR",
    **others: Any,
) -> Precision:
    """One rounding for all roles; None leaves a role alone; `others` are those of `Precision` by name."""
    given = {"weight": weight, "membrane": membrane, "threshold": threshold, "trace": trace}
    return Precision(**{k: None if b is None else Register(b, rounding) for k, b in given.items()}, **others)  # type: ignore[arg-type]


def experiment(
    data: Any,
    *,
    config: DiehlCook,
    precision: Precision | None = None,
    scheme: Scheme = "itq",
    epochs: int = 1,
    samples: int | None = None,
    label_samples: int = 10_000,
    test_samples: int | None = None,
    vote: Vote = "all",
    checkpoint: Path | str | None = None,
    float_network: Path | str | None = None,
    engine: str = "auto",
    quiet: bool = True,
) -> Outcome:
    """Run one row.

    Args:
        data: something with ``train.x``, ``train.y``, ``test.x``, ``test.y`` (`data.load_mnist`, `data.load_digits`).
        config: the network; its seed is the row's.
        precision: registers; None is float.
        scheme: ``itq`` learns under `precision`, ``ptq`` learns in float and quantizes then.
        epochs: passes over the training images.
        samples: how many training images are used, the first ones; None for all.
        label_samples: training images (the first ones) whose answers give the neurons their labels.
        test_samples: test images (the first ones; None: all).
        vote: the vote that `correct` refers to.
        checkpoint: file that training writes and resumes from.
        float_network: for ``ptq``, a learned float network to start from, in place of training one.
        engine: see `Network`.
        quiet: no progress bar.

    Raises:
        PlanError: a scheme without a precision, or a precision with ``float``.
    """
    precision = precision or Precision()
    if (scheme == "float") != precision.is_real:
        raise PlanError(f"experiment: the scheme {scheme!r} does not go with the precision {precision}")
    images, y = data.train.x[:samples], data.train.y[:samples]
    learned = Network(config, precision if scheme == "itq" else Precision(), engine=engine)
    if float_network is not None and scheme == "ptq":
        learned, spent = load_network(float_network, engine=engine), 0.0
    else:
        spent = train(learned, images, y, epochs=epochs, checkpoint=checkpoint, quiet=quiet).seconds
    network = quantized(learned, precision) if scheme == "ptq" else learned
    classes = int(max(data.train.y.max(), data.test.y.max())) + 1
    started = time.perf_counter()
    answers = network.infer(images[:label_samples])
    labels = assign_labels(answers, y[:label_samples], classes=classes)
    tested = time.perf_counter()
    target = data.test.y[:test_samples]
    activity = network.infer(data.test.x[:test_samples], first=len(answers.counts))
    ended = time.perf_counter()
    seconds = {"training": spent, "labels": tested - started, "test": ended - tested}
    counts = {"trained_on": len(images), "labelled_on": len(answers.counts), "tested_on": len(target)}
    facts = {"scheme": scheme, "epochs": epochs, "seconds": seconds, **counts}
    return _outcome(network, activity, labels, target, vote, facts)


def _outcome(
    network: Network, activity: Activity, labels: Labels, y: Any, vote: Vote, facts: dict[str, Any]
) -> Outcome:
    config, precision = network.config, network.precision
    right = {v: predict(activity, labels, vote=v) == y for v in VOTES}
    held, inferring = (memory(config, precision, learns=learns) for learns in (True, False))
    floats = [memory(config, Precision(), learns=learns).bits for learns in (True, False)]
    return Outcome(
        precision=precision.to_dict(),
        neurons=config.neurons,
        seed=config.seed,
        accuracy={v: float(np.mean(hit)) for v, hit in right.items()},
        correct="".join("1" if hit else "0" for hit in right[vote]),
        memory_bits=held.bits,
        inference_bits=inferring.bits,
        memory_by_part=held.parts,
        saving=floats[0] / held.bits,
        inference_saving=floats[1] / inferring.bits,
        spikes=float(activity.counts.sum() / len(y)),
        silent_neurons=float(np.mean(labels.assigned < 0)),
        **facts,
    )

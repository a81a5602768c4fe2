"""What all candidates are measured on and against: fixed batches in a random order, and the real network's answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spikequant.analyse.inputs import bits_of_data
from spikequant.analyse.probe import Probe
from spikequant.explore.sequential import hopeless_at
from spikequant.law.errors import DataError
from spikequant.measure import emd
from spikequant.nn.over_time import summed_over_samples
from spikequant.training.evaluate import pairs

BATCH: Final = 125
"""Samples of one batch: its currents stay in a processor's cache, and candidates are looked at after each."""
Right = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Some samples, and the bits of one value of them."""

    x: Tensor
    y: Tensor
    bits: int


@dataclass(frozen=True, eq=False)
class Validation:
    """The data and the real network on them.

    Attributes:
        batches: in the order in which every candidate sees them.
        right: per batch, which samples the real network classified right.
        counts: per batch and spiking layer, spikes of every neuron over samples and steps, features flattened.
        steps: per batch, time steps of a sample.
        target_accuracy: what a candidate is to keep; None: nothing is given up.
        error: probability that a candidate which keeps it is given up.
    """

    batches: tuple[Batch, ...]
    right: tuple[Right, ...]
    counts: tuple[dict[str, Counts], ...]
    steps: tuple[int, ...]
    target_accuracy: float | None
    error: float

    @property
    def accuracy(self) -> float:
        """Of the real network."""
        return float(np.concatenate(self.right).mean())

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(len(batch.y) for batch in self.batches)

    def is_hopeless(self, right: Right) -> bool:
        """Whether a candidate with these answers to the first samples is given up."""
        if self.target_accuracy is None or len(right) >= self.samples:
            return False
        reference = np.concatenate(self.right)
        return hopeless_at(right, reference, self.target_accuracy, error=self.error) is not None

    def emd(self, layers: dict[str, Counts], batches: int, steps: int) -> dict[str, float]:
        """EMD to the real network, in spikes per step, of every spiking layer that ran `steps` steps a sample."""
        shown = sum(len(self.batches[b].y) * self.steps[b] for b in range(batches))
        mine = steps * sum(len(self.batches[b].y) for b in range(batches))
        found = {}
        for path, counts in layers.items():
            reference = np.sum([self.counts[b][path] for b in range(batches)], axis=0)
            found[path] = emd(reference / shown, counts / mine)
        return found


def validation(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    target_accuracy: float | None,
    error: float,
    seed: int,
    batch_axis: int = 0,
    batch_size: int = BATCH,
) -> Validation:
    """Shuffle the samples by `seed`, cut them into batches and run the real network on them, once.

    Raises:
        DataError: no batch, samples of different shapes, data that the model cannot take, an error outside (0, 1).
    """
    if not 0.0 < error < 1.0:
        raise DataError(f"explore: error {error} of giving up; expected a probability in (0, 1)")
    cut = _shuffled(batches, batch_axis, seed, batch_size)
    right: list[Right] = []
    counts: list[dict[str, Counts]] = []
    steps: list[int] = []
    with Probe(model, "the real network", operations=False) as probe:
        for batch in cut:
            before = probe.found.sample_steps
            trains = probe.run(batch.x, batch.y)
            steps.append((probe.found.sample_steps - before) // len(batch.y))
            right.append((probe.found.predictions[-1] == probe.found.targets[-1]).numpy())
            counts.append({path: spike_counts(train) for path, train in trains.items()})
    if not counts[0]:
        raise DataError("explore: the network has no layer of spiking neurons that spikequant knows")
    return Validation(cut, tuple(right), tuple(counts), tuple(steps), target_accuracy, error)


def spike_counts(train: Tensor) -> Counts:
    """Spikes of every neuron over all steps and samples: ``[T, N, *features]`` to float64 ``[features]``, exact."""
    total: Counts = summed_over_samples(train).flatten().to(torch.float64).numpy(force=True)  # far below 2^24
    return total


def _shuffled(batches: Iterable[tuple[Tensor, Tensor]], axis: int, seed: int, size: int) -> tuple[Batch, ...]:
    given = [(x, y) for x, y in pairs(batches)]
    if not given or not all(len(y) for _, y in given):
        raise DataError("explore: the loader gave no batch, or an empty one; expected (input, target) pairs")
    for x, y in given:
        if x.dim() <= axis or x.shape[axis] != len(y):
            raise DataError(
                f"explore: an input of shape {tuple(x.shape)} has {len(y)} targets; "
                f"expected one per sample, on axis {axis}"
            )
    try:
        x, y = torch.cat([x for x, _ in given], dim=axis), torch.cat([y for _, y in given])
    except RuntimeError as error:
        raise DataError(f"explore: the batches do not fit together: {error}; expected samples of one shape") from error
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))
    found = []
    for start in range(0, len(y), size):
        part = order[start : start + size]
        some = x.index_select(axis, part)
        found.append(Batch(some, y[part], bits_of_data(some)))
    return tuple(found)

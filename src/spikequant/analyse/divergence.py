"""Where two networks that run side by side first emit different spikes, and the rasters of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from torch import Tensor

from spikequant.analyse.records import Raster
from spikequant.measure import Divergence

MOST_NEURONS = 200
"""Neurons of a layer that a raster shows at most."""


@final
class DivergenceSearch:
    """The first spike that differs over all batches, and the samples with any difference.

    Earliest step first, then layers in the reference's order, then sample, then neuron.
    Holds one flag per sample.

    >>> search = DivergenceSearch()
    >>> search.update({"fc": torch.zeros(3, 2, 1)}, {"fc": torch.tensor([0, 0, 0, 1, 0, 0.0]).reshape(3, 2, 1)})
    >>> print(search.first, search.share)
    step 1, layer fc, sample 1, neuron 0: expected 0, got 1 0.5
    """

    def __init__(self) -> None:
        self.first: Divergence | None = None
        self._rank = 0
        self._diverged: list[Tensor] = []
        self._samples = 0

    def update(self, reference: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
        """Add one batch; per layer ``[T, N, *features]``, the same shapes in both."""
        samples = next(iter(reference.values())).shape[1]
        same = torch.ones(samples, dtype=torch.bool)
        for rank, (layer, expected) in enumerate(reference.items()):
            got = other[layer].to(expected)
            if not torch.equal(expected, got):
                self._search(rank, layer, expected, got, same)
        self._diverged.append(~same)
        self._samples += samples

    def _search(self, rank: int, layer: str, expected: Tensor, got: Tensor, same: Tensor) -> None:
        """Step by step; samples known to differ are left out once no earlier difference can come."""
        for step, (a, b) in enumerate(zip(expected.flatten(2), got.flatten(2), strict=True)):
            may_be_first = self.first is None or (step, rank) < (self.first.step, self._rank)
            rows = torch.arange(len(same)) if may_be_first else same.nonzero().flatten()
            if len(rows) == 0:
                return
            whole = len(rows) == len(same)
            gap = a - b if whole else a[rows.to(a.device)] - b[rows.to(b.device)]
            differs = rows[(torch.linalg.vector_norm(gap, ord=float("inf"), dim=1) != 0).cpu()]
            same[differs] = False
            if may_be_first and len(differs):
                self._note(rank, layer, a, b, step, int(differs[0]))

    def _note(self, rank: int, layer: str, a: Tensor, b: Tensor, step: int, sample: int) -> None:
        neuron = int((a[sample] != b[sample]).nonzero()[0])
        values = float(a[sample, neuron]), float(b[sample, neuron])
        self.first = Divergence(step, layer, self._samples + sample, neuron, expected=values[0], got=values[1])
        self._rank = rank

    @property
    def share(self) -> float:
        """Share of samples in which at least one spike differs."""
        return float(torch.cat(self._diverged).to(torch.float64).mean())


def shown_neurons(total: int) -> np.ndarray:
    """Indices of at most `MOST_NEURONS` neurons, evenly spaced, the first one always there.

    >>> shown_neurons(3).tolist(), shown_neurons(400)[:3].tolist()
    ([0, 1, 2], [0, 2, 4])
    """
    count = min(total, MOST_NEURONS)
    return np.arange(count, dtype=np.int64) * total // count


def raster(layer: str, sample: int, place: int, reference: Tensor, quantized: Tensor) -> Raster:
    """The raster of the sample at `place` of a batch; trains ``[T, N, *features]``."""
    neurons = shown_neurons(reference[0, 0].numel())

    def shown(train: Tensor) -> np.ndarray:
        counts: np.ndarray = train[:, place].reshape(len(train), -1).to(torch.int32).numpy(force=True)
        return counts[:, neurons]

    return Raster(
        layer=layer,
        sample=sample,
        neurons=neurons,
        total=reference[0, 0].numel(),
        reference=shown(reference),
        quantized=shown(quantized),
    )

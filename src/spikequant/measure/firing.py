"""Firing behaviour: rates, the distance between two rate distributions, and first differences.

The *rate* of a neuron is the mean of its spikes over samples and steps.  The *EMD* of a
layer is the Wasserstein-1 distance between the distributions of per-neuron rates of two
networks.  An EMD means nothing without its floor: the EMD between two halves of the data,
or between two seeds of the float network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

Rates = npt.NDArray[np.float64]


@final
class FiringStatistics:
    """Rates of the neurons of one layer, summed batch by batch in O(neurons) memory.

    ``rate_i = sum |spikes[t, n, i]| / (samples * steps)``

    A spike counts by its magnitude: two spikes in one step count twice, and the signed
    spikes +1 and -1 do not cancel out to a silent neuron.  `layer` only names the layer in
    messages.

    >>> statistics = FiringStatistics()
    >>> statistics.update(np.array([[[1, 0]], [[0, 0]]]))  # T=2 steps, N=1 sample, 2 neurons
    >>> statistics.update(np.array([[[1, 0]], [[1, 0]]]))
    >>> statistics.rates().tolist()
    [0.75, 0.0]
    >>> [half.tolist() for half in statistics.halves()]
    [[0.5, 0.0], [1.0, 0.0]]
    """

    def __init__(self, layer: str = "layer") -> None:
        self.layer = layer
        self.samples = 0
        self._features: tuple[int, ...] | None = None
        self._sums: list[Rates] = []
        self._observations = [0, 0]

    def update(self, spikes: npt.NDArray[Any]) -> None:
        """Add one batch.

        Shapes: ``spikes [T, N, *features]``, numbers or booleans; T and N may differ between
        batches, the features may not.

        Raises:
            DataError: no steps, samples or neurons, other features than before, NaN or infinity.
        """
        if spikes.ndim < 2 or spikes.size == 0:
            raise DataError(f"{self.layer}: spikes are [T, N, *features] and not empty, got {list(spikes.shape)}")
        self.add(np.abs(spikes, dtype=np.float64).sum(axis=0), steps=spikes.shape[0])

    def add(self, counts: npt.NDArray[Any], *, steps: int) -> None:
        """Add one batch that was summed over time already.

        Shapes: `counts` ``[N, *features]``, ``sum_t |spikes[t]|`` over `steps` steps.

        Raises:
            DataError: no steps, samples or neurons, other features than before, NaN or infinity.
        """
        if counts.ndim < 1 or counts.size == 0 or steps < 1:
            raise DataError(
                f"{self.layer}: spike counts are [N, *features] and not empty, got {list(counts.shape)}, {steps} steps"
            )
        features = counts.shape[1:]
        if self._features is None:
            self._features = features
            self._sums = [np.zeros(int(np.prod(features)), dtype=np.float64) for _ in range(2)]
        elif features != self._features:
            raise DataError(
                f"{self.layer}: earlier batches had features {list(self._features)}, this one has {list(features)}"
            )
        for half in range(2):
            part = counts[(half + self.samples) % 2 :: 2]
            total = part.sum(axis=0, dtype=np.float64).reshape(-1)
            if not np.isfinite(total).all():
                raise DataError(f"{self.layer}: spikes hold NaN or infinity behind sample {self.samples}")
            self._sums[half] += total
            self._observations[half] += steps * len(part)
        self.samples += len(counts)

    def rates(self) -> Rates:
        """Spikes per step of each neuron, float64 ``[neurons]``, features flattened."""
        if self.samples == 0:
            raise DataError(f"{self.layer}: rates were asked for before the first update()")
        return (self._sums[0] + self._sums[1]) / sum(self._observations)

    def halves(self) -> tuple[Rates, Rates]:
        """Rates over the even and over the odd samples: two disjoint halves, for the EMD floor.

        Samples do not touch each other, so that the halves do not depend on the batches.
        """
        if self.samples < 2:
            raise DataError(f"{self.layer}: two halves need 2 or more samples, got {self.samples}")
        return self._sums[0] / self._observations[0], self._sums[1] / self._observations[1]


def emd(r: npt.ArrayLike, s: npt.ArrayLike) -> float:
    """Wasserstein-1 distance between two sets of rates, in spikes per step.

    ``integral_0^1 |R^-1(q) - S^-1(q)| dq``, which for sets of one size is
    ``mean_i |r_(i) - s_(i)|`` over the sorted rates.  The sizes may differ.

    Source: S. S. Vallender, "Calculation of the Wasserstein distance between probability
    distributions on the line", Theory Probab. Appl. 18, 1974; for rates of spiking layers
    Smith et al. 2026.

    >>> emd([0.0, 0.5, 1.0], [1.0, 0.0, 0.5])
    0.0
    >>> emd([0.0, 1.0], [0.5])
    0.5
    """
    r_sorted, s_sorted = np.sort(_rates(r, "r")), np.sort(_rates(s, "s"))
    n, m = len(r_sorted), len(s_sorted)
    if n == m:
        return float(np.mean(np.abs(r_sorted - s_sorted)))
    # Quantile levels in units of 1 / (n m): integers, so that no step is lost to rounding.
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(levels, prepend=0)
    gaps = np.abs(r_sorted[(levels - 1) // m] - s_sorted[(levels - 1) // n])
    return float(np.dot(gaps, widths) / (n * m))


def matched_l1(r: npt.ArrayLike, s: npt.ArrayLike) -> float:
    """``mean_i |r_i - s_i|``: each neuron against itself, never below `emd`.

    >>> matched_l1([0.0, 0.5, 1.0], [1.0, 0.0, 0.5])
    0.6666666666666666
    """
    r_rates, s_rates = _rates(r, "r"), _rates(s, "s")
    if len(r_rates) != len(s_rates):
        raise DataError(f"matched_l1 pairs the neurons of one layer; got {len(r_rates)} and {len(s_rates)} rates")
    return float(np.mean(np.abs(r_rates - s_rates)))


def dead_share(rates: npt.ArrayLike, below: float = 0.05) -> float:
    """Share of neurons with a rate strictly under `below` spikes per step.

    >>> dead_share([0.0, 0.04, 0.05, 0.5])
    0.5
    """
    return float(np.mean(_rates(rates, "rates") < below))


def silent_share(rates: npt.ArrayLike) -> float:
    """Share of neurons that never fired: rate exactly 0.

    >>> silent_share([0.0, 0.04, 0.05, 0.5])
    0.25
    """
    return float(np.mean(_rates(rates, "rates") == 0.0))


def saturated_share(rates: npt.ArrayLike, at_least: float = 0.95) -> float:
    """Share of neurons with a rate of `at_least` spikes per step or more.

    >>> saturated_share([0.0, 0.95, 1.0, 0.5])
    0.5
    """
    return float(np.mean(_rates(rates, "rates") >= at_least))


def network_emd(per_layer: Mapping[str, float]) -> float:
    """``mean_l emd_l``: every layer counts the same, whatever its size.

    >>> network_emd({"conv": 0.25, "fc": 0.75})
    0.5
    """
    if not per_layer:
        raise DataError("network_emd needs the EMD of at least one layer, got none")
    return float(np.mean(list(per_layer.values())))


def network_emd_weighted(per_layer: Mapping[str, float], neurons: Mapping[str, int]) -> float:
    """``sum_l neurons_l * emd_l / sum_l neurons_l``: every neuron counts the same.

    >>> network_emd_weighted({"conv": 0.25, "fc": 0.75}, {"conv": 30, "fc": 10})
    0.375
    """
    if not per_layer or per_layer.keys() != neurons.keys():
        raise DataError(
            f"expected the same layers twice, got EMDs of {sorted(per_layer)} and neurons {sorted(neurons)}"
        )
    total = sum(neurons.values())
    if min(neurons.values()) < 1:
        raise DataError(f"every layer has at least 1 neuron, got {dict(neurons)}")
    return float(sum(neurons[layer] * value for layer, value in per_layer.items()) / total)


@dataclass(frozen=True)
class Divergence:
    """The first spike that differs; `neuron` counts in the flattened features.

    >>> print(Divergence(step=3, layer="fc1", sample=0, neuron=17, expected=1.0, got=0.0))
    step 3, layer fc1, sample 0, neuron 17: expected 1, got 0
    """

    step: int
    layer: str
    sample: int
    neuron: int
    expected: float
    got: float

    def __str__(self) -> str:
        where = f"step {self.step}, layer {self.layer}, sample {self.sample}, neuron {self.neuron}"
        return f"{where}: expected {self.expected:g}, got {self.got:g}"


def first_divergence(
    reference: Mapping[str, npt.NDArray[Any]], other: Mapping[str, npt.NDArray[Any]]
) -> Divergence | None:
    """The earliest difference between two recordings, or None if they are equal.

    Earliest step first, then layers in the order of `reference`, then sample, then neuron:
    the one difference that no other difference can have caused.

    Shapes: per layer ``[T, N, *features]``, the same in both.

    Raises:
        DataError: no layers, other layers, or other shapes.

    >>> a = {"fc1": np.zeros((2, 1, 3)), "fc2": np.zeros((2, 1, 1))}
    >>> b = {"fc1": np.zeros((2, 1, 3)), "fc2": np.array([[[0.0]], [[1.0]]])}
    >>> print(first_divergence(a, b))
    step 1, layer fc2, sample 0, neuron 0: expected 0, got 1
    >>> first_divergence(a, a) is None
    True
    """
    if not reference or reference.keys() != other.keys():
        raise DataError(f"expected the same layers twice, got {list(reference)} and {list(other)}")
    first: Divergence | None = None
    for layer, expected in reference.items():
        found = _first_in_layer(layer, expected, other[layer])
        if found is not None and (first is None or found.step < first.step):
            first = found
    return first


def _first_in_layer(layer: str, expected: npt.NDArray[Any], got: npt.NDArray[Any]) -> Divergence | None:
    if expected.shape != got.shape or expected.ndim < 2:
        raise DataError(
            f"{layer}: expected two recordings [T, N, *features] of one shape, "
            f"got {list(expected.shape)} and {list(got.shape)}"
        )
    expected = expected.reshape(*expected.shape[:2], -1)
    got = got.reshape(expected.shape)
    differs = expected != got
    if not differs.any():
        return None
    step, sample, neuron = at = tuple(int(i) for i in np.unravel_index(int(differs.argmax()), differs.shape))
    return Divergence(step, layer, sample, neuron, expected=float(expected[at]), got=float(got[at]))


def _rates(values: npt.ArrayLike, name: str) -> Rates:
    rates = np.asarray(values, dtype=np.float64)
    if rates.ndim != 1 or rates.size == 0 or not np.isfinite(rates).all():
        raise DataError(f"{name}: expected finite rates [neurons], at least one; got shape {list(rates.shape)}")
    return rates

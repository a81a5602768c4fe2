from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from spikequant.law.errors import DataError
from spikequant.measure import (
    Divergence,
    FiringStatistics,
    dead_share,
    emd,
    first_divergence,
    matched_l1,
    network_emd,
    network_emd_weighted,
    saturated_share,
    silent_share,
)

RATES = st.lists(st.floats(0, 4, allow_subnormal=False), min_size=1, max_size=30)


# --- rates --------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_streamed_rates_are_the_rates_of_everything(sizes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.integers(0, 4, size=(steps, samples, 2, 3)) for steps, samples in sizes]
    statistics = FiringStatistics()
    for batch in batches:
        statistics.update(batch)
    rows = np.concatenate([batch.reshape(-1, 6) for batch in batches])
    np.testing.assert_array_equal(statistics.rates(), rows.sum(axis=0) / len(rows))
    samples = [batch[:, n].reshape(-1, 6) for batch in batches for n in range(batch.shape[1])]
    if len(samples) > 1:
        for part, half in enumerate(statistics.halves()):
            rows = np.concatenate(samples[part::2])
            np.testing.assert_array_equal(half, rows.sum(axis=0) / len(rows))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int64, np.float16, np.float32, np.float64])
def test_every_number_type_counts_the_same(dtype: type) -> None:
    statistics = FiringStatistics()
    statistics.update(np.ones((300, 2, 1), dtype))
    assert statistics.rates().tolist() == [1.0], "300 spikes do not overflow a byte"


def test_signed_spikes_do_not_cancel() -> None:
    statistics = FiringStatistics()
    statistics.update(np.array([[[1, 0]], [[-1, 0]]], np.int8))
    assert statistics.rates().tolist() == [1.0, 0.0]
    assert silent_share(statistics.rates()) == 0.5


def test_memory_is_per_neuron_not_per_sample() -> None:
    statistics = FiringStatistics()
    for _ in range(5):
        statistics.update(np.ones((3, 7, 4)))
    held = [value for value in vars(statistics).values() if isinstance(value, list)]
    assert sum(np.size(part) for group in held for part in group) <= 2 * 4 + 2


@pytest.mark.parametrize(
    ("spikes", "message"),
    [
        (np.zeros(3), r"fc1: spikes are \[T, N, \*features\] and not empty, got \[3\]"),
        (np.zeros((0, 2, 3)), "not empty"),
        (np.zeros((1, 2, 0)), "not empty"),
        (np.full((1, 2, 3), np.nan), "NaN or infinity behind sample 0"),
    ],
)
def test_bad_spikes_are_named(spikes: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FiringStatistics("fc1").update(spikes)


def test_order_of_calls_is_checked() -> None:
    statistics = FiringStatistics("fc1")
    with pytest.raises(DataError, match=r"fc1: rates were asked for before the first update\(\)"):
        statistics.rates()
    statistics.update(np.zeros((1, 1, 3)))
    with pytest.raises(DataError, match="2 or more samples, got 1"):
        statistics.halves()
    with pytest.raises(DataError, match=r"earlier batches had features \[3\], this one has \[4\]"):
        statistics.update(np.zeros((1, 2, 4)))


# --- distances ----------------------------------------------------------------------------


@given(RATES, RATES)
def test_emd_is_scipys(r: list[float], s: list[float]) -> None:
    assert emd(r, s) == pytest.approx(wasserstein_distance(r, s), rel=1e-9, abs=1e-12)


@given(RATES, st.integers(1, 4), st.integers(1, 4))
def test_emd_sees_distributions_not_sizes(r: list[float], k: int, j: int) -> None:
    assert emd(np.repeat(r, k), np.repeat(r, j)) == 0.0


@given(RATES, RATES)
def test_emd_is_symmetric(r: list[float], s: list[float]) -> None:
    assert emd(r, s) == pytest.approx(emd(s, r), rel=1e-12)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_matched_l1_is_never_below_emd(pairs: list[tuple[float, float]]) -> None:
    r, s = zip(*pairs, strict=True)
    assert matched_l1(r, s) >= emd(r, s) - 1e-12


def test_emd_by_hand() -> None:
    assert emd([0.0, 1.0], [0.25, 0.5, 0.75]) == pytest.approx(1 / 3)  # (.25 + .5 / 2 + .5 / 2 + .25) / 3
    assert emd([0.5], [0.0, 0.5, 1.0, 1.0]) == 0.375


@pytest.mark.parametrize("bad", [[], [[0.5]], [np.nan], [np.inf]])
def test_bad_rates_are_refused(bad: list[float]) -> None:
    with pytest.raises(DataError, match="expected finite rates"):
        emd(bad, [0.5])


def test_matched_l1_needs_pairs() -> None:
    with pytest.raises(DataError, match="got 1 and 2 rates"):
        matched_l1([0.5], [0.5, 0.5])


# --- shares and networks ------------------------------------------------------------------


def test_shares_at_their_borders() -> None:
    rates = [0.0, 1e-9, 0.0499, 0.05, 0.9499, 0.95, 1.0, 2.0]
    assert silent_share(rates) == 1 / 8
    assert dead_share(rates) == 3 / 8
    assert dead_share(rates, below=0.95) == 5 / 8
    assert saturated_share(rates) == 3 / 8
    assert saturated_share(rates, at_least=1.5) == 1 / 8


def test_network_emds_differ_by_the_weight() -> None:
    per_layer, neurons = {"a": 0.1, "b": 0.3}, {"b": 1, "a": 3}
    assert network_emd(per_layer) == pytest.approx(0.2)
    assert network_emd_weighted(per_layer, neurons) == pytest.approx(0.15)


def test_network_emds_refuse_gaps() -> None:
    with pytest.raises(DataError, match="at least one layer"):
        network_emd({})
    with pytest.raises(DataError, match=r"EMDs of \['a'\] and neurons \['b'\]"):
        network_emd_weighted({"a": 0.1}, {"b": 1})
    with pytest.raises(DataError, match="at least 1 neuron"):
        network_emd_weighted({"a": 0.1}, {"a": 0})


# --- first divergence ---------------------------------------------------------------------


def recording(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"fc2": rng.integers(0, 2, (4, 3, 5)), "fc1": rng.integers(0, 3, (4, 3, 2, 2))}


@given(st.lists(st.tuples(st.sampled_from(["fc2", "fc1"]), st.integers(0, 3), st.integers(0, 2), st.integers(0, 3))))
def test_first_divergence_is_the_earliest(flips: list[tuple[str, int, int, int]]) -> None:
    reference, other = recording(), recording()
    for layer, step, sample, neuron in flips:
        other[layer].reshape(4, 3, -1)[step, sample, neuron] = 9
    found = first_divergence(reference, other)
    if not flips:
        assert found is None
        return
    step, _, sample, neuron, layer = min((s, ["fc2", "fc1"].index(at), n, i, at) for at, s, n, i in flips)
    expected = float(reference[layer].reshape(4, 3, -1)[step, sample, neuron])
    assert found == Divergence(step, layer, sample, neuron, expected=expected, got=9.0)


def test_nan_differs() -> None:
    bad = {"fc1": np.array([[[0.0]], [[np.nan]]])}
    found = first_divergence({"fc1": np.zeros((2, 1, 1))}, bad)
    assert found is not None
    assert found.step == 1


def test_recordings_must_match() -> None:
    with pytest.raises(DataError, match="same layers"):
        first_divergence(recording(), {"fc1": np.zeros((1, 1, 1))})
    with pytest.raises(DataError, match="same layers"):
        first_divergence({}, {})
    with pytest.raises(DataError, match=r"fc1: .* got \[1, 1, 2\] and \[1, 1, 1\]"):
        first_divergence({"fc1": np.zeros((1, 1, 2))}, {"fc1": np.zeros((1, 1, 1))})

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikequant.data import ArrayBatches
from spikequant.law.errors import DataError

X = np.arange(7 * 4, dtype=np.uint8).reshape(7, 1, 2, 2)
Y = np.arange(7)


def labels(batches: ArrayBatches) -> list[int]:
    return [int(label) for _, y in batches for label in y]


def test_types_shapes_and_scale() -> None:
    batches = ArrayBatches(X, Y.astype(np.uint8), batch_size=3, scale=1 / 255)
    sizes = []
    for x, y in batches:
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.shape[1:] == (1, 2, 2)
        sizes.append(len(y))
    assert sizes == [3, 3, 1]
    assert (len(batches), batches.samples) == (3, 7)
    everything = torch.cat([x for x, _ in batches]).numpy()
    np.testing.assert_array_equal(everything, X.astype(np.float32) * np.float32(1 / 255))


def test_pairs_stay_together_when_shuffled() -> None:
    for x, y in ArrayBatches(X, Y, batch_size=2, shuffle=True, seed=3):
        assert x[:, 0, 0, 0].tolist() == (4 * y).tolist()


def test_order_is_a_function_of_seed_and_epoch() -> None:
    x, y = np.zeros((50, 1)), np.arange(50)
    batches = ArrayBatches(x, y, batch_size=8, shuffle=True, seed=1)
    first = labels(batches)
    assert sorted(first) == list(range(50))
    assert labels(batches) == first, "iterating alone does not advance the epoch"
    batches.set_epoch(1)
    second = labels(batches)
    assert second != first
    batches.set_epoch(0)
    assert labels(batches) == first
    again = ArrayBatches(x, y, batch_size=50, shuffle=True, seed=1)
    again.set_epoch(1)
    assert labels(again) == second, "the batch size has no say in the order"
    assert labels(ArrayBatches(x, y, shuffle=True, seed=2)) != first


def test_without_shuffle_the_epoch_has_no_effect() -> None:
    batches = ArrayBatches(X, Y, batch_size=2, seed=1)
    batches.set_epoch(5)
    assert labels(batches) == list(range(7))


@given(st.integers(1, 40), st.integers(1, 50))
def test_length_is_the_number_of_batches(samples: int, batch_size: int) -> None:
    batches = ArrayBatches(np.zeros((samples, 2)), np.arange(samples), batch_size=batch_size)
    assert len(batches) == sum(1 for _ in batches)
    assert labels(batches) == list(range(samples))


def test_batches_do_not_share_memory_with_the_arrays() -> None:
    x, y = np.ones((4, 2), np.float32), np.zeros(4, np.int64)
    for xb, yb in ArrayBatches(x, y, batch_size=4):
        xb.zero_()
        yb.fill_(9)
    assert x.sum() == 8
    assert y.sum() == 0


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, np.int64), {}, "no samples"),
        (np.zeros((3, 2)), np.zeros(2, np.int64), {}, r"got x \[3, 2\] and y \[2\]"),
        (np.zeros((3, 2)), np.zeros((3, 1), np.int64), {}, r"expected x \[N, ...\] and y \[N\]"),
        (np.zeros((3, 2)), np.zeros(3), {}, "labels are integers, got float64"),
        (np.array([[0.0], [np.nan], [0.0]]), np.zeros(3, np.int64), {}, "NaN or infinity, first in sample 1"),
        (np.array([[0.0], [0.0], [-np.inf]]), np.zeros(3, np.int64), {}, "first in sample 2"),
        (np.array([["a"]]), np.zeros(1, np.int64), {}, "real numbers"),
        (X, Y, {"batch_size": 0}, "batch_size=0"),
        (X, Y, {"seed": -1}, "got -1"),
    ],
)
def test_bad_data_is_named(x: np.ndarray, y: np.ndarray, options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArrayBatches(x, y, **options)


def test_negative_epoch() -> None:
    with pytest.raises(DataError, match="epochs count from 0"):
        ArrayBatches(X, Y).set_epoch(-1)

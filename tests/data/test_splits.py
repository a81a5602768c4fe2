from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.data.splits import hash_ranks, held_out, stratified_folds
from spikequant.law.errors import DataError

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(lambda y: np.array(y, np.int64))


def slow_ranks(salt: str, y: np.ndarray) -> list[int]:
    """The definition, one sample at a time."""
    keys = [hashlib.sha256(f"{salt}:{i}".encode()).hexdigest() for i in range(len(y))]
    return [sum(keys[j] < keys[i] for j in range(len(y)) if y[j] == y[i]) for i in range(len(y))]


@given(LABELS)
def test_ranks_are_the_definition(y: np.ndarray) -> None:
    assert hash_ranks("a", y).tolist() == slow_ranks("a", y)


@given(LABELS, st.data())
def test_held_out_is_stratified_and_of_the_right_size(y: np.ndarray, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(y) - 1))
    mask = held_out("a", y, count)
    assert mask.sum() == count
    for label in np.unique(y):
        share = count * (y == label).sum() / len(y)
        assert abs(mask[y == label].sum() - share) < 1, "no class gives a whole sample more or less than its share"


@given(LABELS, st.integers(2, 5))
def test_folds_hold_every_sample_once_and_are_balanced(y: np.ndarray, count: int) -> None:
    if count > len(y):
        return
    folds = stratified_folds("a", y, count)
    sizes = np.bincount(folds, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    for label in np.unique(y):
        of_class = np.bincount(folds[y == label], minlength=count)
        assert of_class.max() - of_class.min() <= 1


def test_splits_depend_on_the_salt_only_by_name() -> None:
    y = np.zeros(100, np.int64)
    assert not np.array_equal(held_out("a", y, 50), held_out("b", y, 50))
    assert np.array_equal(held_out("a", y, 50), held_out("a", y, 50))


def test_a_split_never_changes() -> None:
    y = np.arange(1000) % 7
    digest = hashlib.sha256(stratified_folds("fixed", y).tobytes() + held_out("fixed", y, 123).tobytes()).hexdigest()
    assert digest == "9df2c275e483d685656755e2c9bf37028df00d3d16363b0a8389d2ea6c07c8c4"


@pytest.mark.parametrize("count", [0, -1, 3, 4])
def test_held_out_needs_some_and_leaves_some(count: int) -> None:
    with pytest.raises(DataError, match=f"1 to 2 can be held out, got {count}"):
        held_out("a", np.zeros(3, np.int64), count)


@pytest.mark.parametrize("count", [1, 4])
def test_number_of_folds(count: int) -> None:
    with pytest.raises(DataError, match=f"3 samples make 2 to 3 folds, got {count}"):
        stratified_folds("a", np.zeros(3, np.int64), count)

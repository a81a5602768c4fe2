"""Augmentation: each change by itself, replayable sample by sample, never on what is evaluated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spikequant as sq
from spikequant.data import EVENTS, IMAGES, Augment
from spikequant.law.errors import DataError


def many(augment: Augment, x: np.ndarray, count: int = 200) -> list[np.ndarray]:
    return [augment.sample(x, np.random.default_rng(k)) for k in range(count)]


X = np.arange(1.0, 1 + 2 * 6 * 8).reshape(1, 2, 6, 8)


def test_flip_is_every_second_time() -> None:
    flipped = [np.array_equal(x, X[..., ::-1]) for x in many(Augment(flip=True), X)]
    assert 70 < sum(flipped) < 130
    assert all(f or np.array_equal(x, X) for f, x in zip(flipped, many(Augment(flip=True), X), strict=True))


def test_roll_keeps_every_value_and_crop_brings_zeros() -> None:
    seen = set()
    for rolled, cropped in zip(many(Augment(roll=2), X), many(Augment(crop=2), X), strict=True):
        assert np.array_equal(np.sort(rolled, None), np.sort(X, None))
        kept = cropped != 0
        assert np.array_equal(cropped[kept], rolled[kept])
        seen.add(tuple(int(k) for k in np.argwhere(rolled == X[0, 0, 3, 3])[0][2:]))
    assert seen == {(y, x) for y in range(1, 6) for x in range(1, 6)}


def test_cutout_and_drops() -> None:
    assert all(1 <= (x == 0).sum() <= 2 * 9 for x in many(Augment(cutout=3), X))
    shares = [(x == 0).mean() for x in many(Augment(drop=0.5), X)]
    assert max(shares) < 0.7
    assert 0.15 < float(np.mean(shares)) < 0.35
    times = [(x == 0).all((1, 2, 3)) for x in many(Augment(drop_time=0.5), np.ones((10, 2, 4, 4)))]
    counts = [int(t.sum()) for t in times]
    assert set(counts) == {0, 1, 2, 3, 4}
    assert all(np.diff(np.flatnonzero(t)).max(initial=1) == 1 for t in times)


@given(st.integers(0, 99), st.integers(0, 9), st.integers(1, 6))
def test_a_sample_changes_alike_in_every_batch(seed: int, epoch: int, size: int) -> None:
    x = np.random.default_rng(0).random((3, 6, 2, 8, 8))
    whole = EVENTS.batch(x, np.arange(6), 1, seed, epoch)
    parts = [
        EVENTS.batch(x[:, k : k + size], np.arange(k, min(k + size, 6)), 1, seed, epoch) for k in range(0, 6, size)
    ]
    assert np.array_equal(whole, np.concatenate(parts, 1))
    assert np.array_equal(x, np.random.default_rng(0).random((3, 6, 2, 8, 8)))


def test_batches_of_a_data_set() -> None:
    data = sq.data.load("digits")
    plain, changed = (data.batches("train", batch_size=50, augment=a) for a in (None, IMAGES))
    first, labels = next(iter(changed))
    again, _ = next(iter(changed))
    assert first.equal(again)
    changed.set_epoch(1)
    later, same = next(iter(changed))
    assert labels.equal(same)
    assert not first.equal(later)
    assert not first.equal(next(iter(plain))[0])
    assert first.shape == later.shape


@pytest.mark.parametrize("wrong", [{"crop": -1}, {"roll": 0.5}, {"drop": 1.5}, {"drop_time": float("nan")}])
def test_numbers_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match=f"Augment: {next(iter(wrong))} = "):
        Augment(**wrong)

"""CIFAR-10 as it lies in the data folder, against what is published about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spikequant.data import DataSet, load
from spikequant.data.cifar import _CIFAR10


@pytest.fixture(scope="module")
def cifar10(real: Callable[..., Path]) -> DataSet:
    data_folder = real("cifar10/test_1900.webp")
    pytest.importorskip("PIL")
    return load("cifar10", folder=data_folder)


def test_counts_means_and_splits(cifar10: DataSet) -> None:
    train, test = cifar10.splits["train"].source, cifar10.splits["test"].source
    assert [len(cifar10.splits[part]) for part in ("train", "validation", "test")] == [45_000, 5_000, 1_900]
    assert np.bincount(cifar10.splits["validation"].y).tolist() == [500] * 10
    assert np.bincount(test.labels).tolist() == [186, 180, 198, 201, 172, 170, 200, 194, 200, 199]
    sums = sum(train.x[start : start + 5000].sum(axis=(0, 2, 3), dtype=np.int64) for start in range(0, 50_000, 5000))
    assert [f"{mean:.3f}" for mean in sums / (50_000 * 1024)] == ["125.307", "122.950", "113.865"]
    digest = hashlib.sha256(cifar10.splits["validation"].indices.astype("<i8").tobytes()).hexdigest()
    assert digest == "c7b1a5ad4aa09a4acd76b6035090300ed306dfd97ba6f2739975e659519cddfe"
    assert cifar10.notes == ("the test set is 1,900 of the 10,000 published images",)


def test_the_sheets_are_the_published_binary_batches(cifar10: DataSet) -> None:
    """Written as binary records, pixel for pixel and in order, they have the published MD5."""
    train = cifar10.splits["train"].source
    for k, md5 in enumerate(_CIFAR10.binary.train.values()):
        part = slice(10_000 * k, 10_000 * (k + 1))
        records = np.concatenate([train.y[part, None].astype(np.uint8), train.x[part].reshape(10_000, -1)], axis=1)
        assert hashlib.md5(records.tobytes()).hexdigest() == md5


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("mnist", "5f6ce33c1f7c89f2b7dbe17b1000e179f72cba06fbad6a8f90f7d17cc0464029"),
        ("fashion-mnist", "ea317ae80a9e1767d76ef58e6b3c83608f1f3645d4db3cac1919bd47d1a99240"),
    ],
)
def test_validation_of_the_mnists(real: Callable[..., Path], name: str, digest: str) -> None:
    data_folder = real(f"{name}/train-images-idx3-ubyte.gz")
    data = load(name, folder=data_folder)
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [55_000, 5_000, 10_000]
    found = hashlib.sha256(data.splits["validation"].indices.astype("<i8").tobytes()).hexdigest()
    assert found == digest
    assert len(data.split("train+validation")) == 60_000

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits as load_embedded

from spikequant.data import ImageData, ImageSplit, load_digits, load_fashion_mnist, load_mnist
from spikequant.law.errors import DataError


def split(n: int = 3, *, label: int = 1, side: int = 8) -> ImageSplit:
    return ImageSplit(np.zeros((n, 1, side, side), np.uint8), np.full(n, label, np.int64))


def test_digits_are_all_there_once() -> None:
    data, embedded = load_digits(), load_embedded()
    assert (len(data.train), len(data.test), data.classes) == (1437, 360, 10)
    both = np.concatenate([data.train.x, data.test.x]).reshape(1797, -1)
    labels = np.concatenate([data.train.y, data.test.y])
    ours = sorted((*map(int, row), int(label)) for row, label in zip(both, labels, strict=True))
    theirs = sorted((*map(int, row), int(label)) for row, label in zip(embedded.data, embedded.target, strict=True))
    assert ours == theirs


def test_digits_split_is_the_published_one() -> None:
    data = load_digits()
    assert np.bincount(data.test.y).tolist() == [36] * 10
    digest = hashlib.sha256(data.test.x.tobytes() + data.test.y.astype("<i8").tobytes()).hexdigest()
    assert digest == "25edaae91957adba9a37093aebfbcdb7c77f0978e9a1e3a51c1b18e023d6f21c"


def test_mnist(real: Callable[..., Path]) -> None:
    data_folder = real("mnist/train-images-idx3-ubyte.gz")
    data = load_mnist(data_folder)
    assert data.train.x.shape == (60_000, 1, 28, 28)
    assert data.test.x.shape == (10_000, 1, 28, 28)
    assert np.bincount(data.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train.y[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert round(float(data.train.x.mean()), 4) == 33.3184  # 0.1307 of 255, as everybody normalises it


def test_fashion_mnist_from_the_environment(real: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data_folder = real("fashion-mnist/train-images-idx3-ubyte.gz")
    monkeypatch.setenv("SPIKEQUANT_DATA", str(data_folder))
    data = load_fashion_mnist()
    assert data.name == "fashion-mnist"
    assert np.bincount(data.train.y).tolist() == [6000] * 10
    assert np.bincount(data.test.y).tolist() == [1000] * 10


def test_mnist_in_its_own_folder_is_found(real: Callable[..., Path]) -> None:
    data_folder = real("mnist/train-images-idx3-ubyte.gz")
    assert len(load_mnist(data_folder / "mnist").test) == 10_000


def test_fashion_files_are_not_taken_for_mnist(real: Callable[..., Path]) -> None:
    data_folder = real("fashion-mnist/train-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match="MD5 is 8d4fb7e6"):
        load_mnist(data_folder / "fashion-mnist")


def test_no_folder_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKEQUANT_DATA", raising=False)
    with pytest.raises(DataError, match=r"pass folder=, or set SPIKEQUANT_DATA to a folder that has mnist/"):
        load_mnist()


def test_empty_folder_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEQUANT_DATA", str(tmp_path))
    with pytest.raises(DataError) as raised:
        load_fashion_mnist()
    assert str(tmp_path / "fashion-mnist") in str(raised.value)
    assert "train-images-idx3-ubyte.gz" in str(raised.value)


def test_a_folder_that_was_named_wins_over_the_environment(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKEQUANT_DATA", str(data_folder))
    with pytest.raises(DataError, match="none has all of"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64), r"\[N, C, H, W\]; got uint8 of shape \[2, 8, 8\]"),
        (np.zeros((2, 1, 8, 8), np.float32), np.zeros(2, np.int64), "got float32"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.zeros(2, np.int32), "labels are int64"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.zeros(3, np.int64), "2 images and 3 labels"),
        (np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, np.int64), "at least one image"),
    ],
)
def test_a_split_is_checked(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageSplit(x, y)


def test_a_data_set_is_checked() -> None:
    with pytest.raises(DataError, match="test labels go from 5 to 5, expected 0 to 4"):
        ImageData("toy", train=split(), test=split(label=5), classes=5)
    with pytest.raises(DataError, match=r"train images are \[1, 8, 8\] and test images \[1, 9, 9\]"):
        ImageData("toy", train=split(), test=split(side=9), classes=5)

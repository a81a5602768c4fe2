from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import spikequant as sq
from spikequant.data import DataSet, ImageSplit, Split
from spikequant.data.shd import PackedSpikes
from spikequant.law.errors import DataError


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return sq.data.load("digits")


def toy(labels: list[int], classes: int = 3) -> DataSet:
    y = np.array(labels, np.int64)
    source = ImageSplit(np.arange(len(y) * 4, dtype=np.uint8).reshape(-1, 1, 2, 2), y)
    half = len(y) // 2
    splits = {"train": Split(source, np.arange(half)), "test": Split(source, np.arange(half, len(y)))}
    return DataSet(
        name="toy",
        splits=splits,
        class_names=tuple("abc")[:classes],
        sample_shape=(1, 2, 2),
        layout="NCHW",
        scale=0.5,
    )


def test_names_are_complete_and_each_has_a_line() -> None:
    names = sq.data.names()
    assert list(names) == [
        "digits",
        "mnist",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "n-mnist",
        "n-mnist-raw",
        "shd",
        "shd-train-test",
        "dvs-gesture",
        "cifar10-dvs",
        "n-caltech101",
        "dvs128-objects",
        "aedat2",
    ]
    assert all(line and "\n" not in line and len(line) < 80 for line in names.values())


@pytest.mark.parametrize("name", ["digits", "DIGITS", "Di-gits", " digits "])
def test_spelling_of_a_name_is_forgiven(name: str) -> None:
    assert sq.data.load(name).name == "digits"


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(DataError, match="no data set 'imagenet'; there are digits, mnist, .*, aedat2"):
        sq.data.load("imagenet")


@pytest.mark.parametrize(
    ("option", "value"), [("fold", 0), ("steps", 4), ("step_ms", 1.0), ("window_ms", 200.0), ("counts", True)]
)
def test_an_option_without_meaning_is_refused(option: str, value: float) -> None:
    with pytest.raises(DataError, match=f"digits has no {option}, got {option}={value}; it takes folder"):
        sq.data.load("digits", **{option: value})


def test_download_of_embedded_data_is_nothing_to_do() -> None:
    assert len(sq.data.load("digits", download=True).splits["test"]) == 360


def test_digits_splits_are_disjoint_and_complete(digits: DataSet) -> None:
    assert [len(digits.splits[part]) for part in ("train", "validation", "test")] == [1257, 180, 360]
    joined = digits.split("train+validation")
    assert np.array_equal(joined.indices, np.arange(1437))
    assert np.array_equal(joined.source.take(joined.indices), sq.data.load_digits().train.x)
    assert np.bincount(digits.split("validation").y).min() >= 17


def test_batches_are_float32_and_scaled(digits: DataSet) -> None:
    x, y = next(iter(digits.batches("train", batch_size=1257)))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert list(x.shape) == [1257, 1, 8, 8]
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    pixels, _ = next(iter(digits.batches("train", batch_size=1257, scale=1.0)))
    assert torch.equal(pixels, x * 16)


def test_batches_follow_the_split_and_replay(digits: DataSet) -> None:
    plain = torch.cat([y for _, y in digits.batches("test", batch_size=7)])
    assert torch.equal(plain, torch.from_numpy(digits.split("test").y))
    batches = digits.batches("test", batch_size=50, shuffle=True, seed=4)
    assert (len(batches), batches.samples) == (8, 360)
    first = torch.cat([y for _, y in batches])
    assert torch.equal(first, torch.cat([y for _, y in batches]))
    assert not torch.equal(first, plain)
    assert torch.equal(first.sort().values, plain.sort().values)
    batches.set_epoch(1)
    assert not torch.equal(first, torch.cat([y for _, y in batches]))


def test_batches_are_what_the_verbs_take(digits: DataSet) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    result = sq.evaluate(model, digits.batches("test"))
    assert 0 <= result.accuracy <= 1


def test_a_batch_is_a_copy(digits: DataSet) -> None:
    for x, y in digits.batches("test"):
        x.zero_()
        y.zero_()
    x, y = next(iter(digits.batches("test")))
    assert float(x.sum()) > 0
    assert int(y.sum()) > 0


def test_samples_of_event_data_are_counted_on_axis_1() -> None:
    packed = PackedSpikes(np.zeros((4, 3, 88), np.uint8), np.arange(4))
    data = DataSet(
        name="toy",
        splits={"train": Split(packed, np.array([2, 0]))},
        class_names=tuple("abcd"),
        sample_shape=(700,),
        layout="TNC",
        scale=1.0,
        steps=3,
    )
    x, y = next(iter(data.batches()))
    assert (data.batch_axis, data.batches().batch_axis) == (1, 1)
    assert list(x.shape) == [3, 2, 700]
    assert y.tolist() == [2, 0]
    assert str(data) == "toy: 4 classes, input [3, N, 700]; train 2"


@pytest.mark.parametrize("name", ["valid", "train+train", "train+", "", "train + test"])
def test_unknown_split(name: str) -> None:
    with pytest.raises(DataError, match="no split .*; it has train, test"):
        toy([0, 1, 2, 0]).split(name)


def test_splits_of_different_files_are_not_joined(digits: DataSet) -> None:
    with pytest.raises(DataError, match="lie in different files"):
        digits.split("train+test")


def test_labels_outside_the_classes() -> None:
    with pytest.raises(DataError, match="toy: test labels go from 0 to 2, expected 0 to 1"):
        toy([0, 1, 2, 0], classes=2)


def test_an_empty_split() -> None:
    with pytest.raises(DataError, match="the split 'train' holds no samples"):
        toy([0])


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"seed": -1}, {"scale": 0.0}, {"scale": float("nan")}])
def test_bad_batches(digits: DataSet, options: dict[str, float]) -> None:
    with pytest.raises(DataError):
        digits.batches("test", **options)
    with pytest.raises(DataError, match="epochs count from 0"):
        digits.batches("test").set_epoch(-1)


@pytest.mark.parametrize("name", [name for name in sq.data.names() if name != "digits"])
def test_every_loader_says_what_is_missing_and_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=f"{name}: looked in {tmp_path}"):
        sq.data.load(name, folder=tmp_path)
    monkeypatch.delenv("SPIKEQUANT_DATA", raising=False)
    with pytest.raises(DataError, match=f"{name}: no folder to look in; pass folder=, or set SPIKEQUANT_DATA"):
        sq.data.load(name)


def test_a_folder_with_half_of_the_files_says_which_are_missing(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataError, match="has 1 of 4 files of this form, it lacks train-labels-idx1-ubyte.gz, t10k"):
        sq.data.load("mnist", folder=tmp_path)

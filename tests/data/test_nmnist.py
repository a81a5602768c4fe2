from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikequant.data import load, nmnist, nmnist_raw
from spikequant.data.nmnist import read_sparse_frames
from spikequant.law.errors import DataError


def recording(number: int, part: str) -> bytes:
    """12 events whose pixels tell which recording it is."""
    x = number % 34
    y = 1 if part == "Train" else 2
    return b"".join(bytes([x, y, (k % 2) << 7, 0, 0]) if k < 6 else bytes([x, y, 5, 0, k]) for k in range(12))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """30 + 10 recordings in the three forms, in folders files, zips and subset."""
    files = {
        f"{part}/{(number * 7) % 10}/{number:05d}.bin": recording(number, part)
        for part, count in (("Train", 30), ("Test", 10))
        for number in range(1, count + 1)
    }
    for name, raw in files.items():
        path = tmp_path / "files" / "n-mnist" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    (tmp_path / "zips" / "NMNIST").mkdir(parents=True)
    for part in ("Train", "Test"):
        path = tmp_path / "zips" / "NMNIST" / f"{part.lower()}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{part}/", b"")
            for name in reversed([name for name in files if name.startswith(part)]):
                archive.writestr(name, files[name])
        monkeypatch.setitem(nmnist_raw.ZIP_MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    (tmp_path / "subset" / "n-mnist").mkdir(parents=True)
    path = tmp_path / "subset" / "n-mnist" / nmnist_raw.SUBSET_FILE
    with tarfile.open(path, "w:xz") as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    monkeypatch.setattr(nmnist_raw, "SUBSET_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return tmp_path


@pytest.mark.parametrize("form", ["files", "zips", "subset"])
def test_every_form_gives_the_same_samples(published: Path, form: str) -> None:
    data = load("n-mnist-raw", folder=published / form, steps=2, counts=True)
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [27, 3, 10]
    x, y = next(iter(data.batches("train+validation", batch_size=30)))
    assert list(x.shape) == [2, 30, 2, 34, 34]
    assert y.tolist() == [(number * 7) % 10 for number in range(1, 31)], (
        "in the order of the numbers, not of the classes"
    )
    for place, number in enumerate(range(1, 31)):
        assert x[:, place].sum() == 12
        assert x[0, place, 0, 1, number % 34] == 3, "polarity 0, in the first half"
        assert x[0, place, 1, 1, number % 34] == 3, "polarity 1"
        assert x[1, place, 0, 1, number % 34] == 6, "time 5 * 2^16 us is in the second half of 340 ms"
    assert next(iter(data.batches("test")))[0][0, 0, 0, 2, 1] == 3


def test_a_damaged_zip_member_is_named(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = published / "zips" / "NMNIST" / "test.zip"
    raw = bytearray(path.read_bytes())
    place = raw.index(b"Test/7/00001.bin") + len(b"Test/7/00001.bin")
    raw[place + 5] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match="test.zip: MD5 is"):
        load("n-mnist-raw", folder=published / "zips")
    monkeypatch.setitem(nmnist_raw.ZIP_MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    data = load("n-mnist-raw", folder=published / "zips")
    with pytest.raises(DataError, match="Test/7/00001.bin"):
        list(data.batches("test"))


def test_a_damaged_file_is_named_when_it_is_read(published: Path) -> None:
    path = published / "files" / "n-mnist" / "Test" / "7" / "00001.bin"
    path.write_bytes(path.read_bytes()[:-1])
    data = load("n-mnist-raw", folder=published / "files")
    with pytest.raises(DataError, match=r"Test/7/00001.bin: 59 bytes; expected 5 bytes an event"):
        list(data.batches("test"))


def test_a_strange_file_is_not_passed_over(published: Path) -> None:
    folder = published / "files" / "n-mnist"
    (folder / "Train" / "x").mkdir()
    (folder / "Train" / "x" / "1.bin").write_bytes(b"12345")
    with pytest.raises(DataError, match="Train/x/1.bin is not Train/<digit 0 to 9>/<number>.bin; move it elsewhere"):
        load("n-mnist-raw", folder=folder)


# --- sparse frames ------------------------------------------------------------------------


def write_frames(path: Path, keys: list[list[int]], **changed: np.ndarray) -> None:
    steps = [np.diff(sample, prepend=0) for sample in keys]
    joined = np.concatenate(steps).astype(np.int64)
    arrays = {
        "lo": (joined & 255).astype(np.uint8),
        "hi": (joined >> 8).astype(np.uint16),
        "offsets": np.cumsum([0, *map(len, keys)]).astype(np.int64),
        "labels": (np.arange(len(keys)) % 8).astype(np.uint8),
        "n_bins": np.full(len(keys), 300, np.uint16),
        "is_test": np.zeros(len(keys), np.uint8),
        "source_index": np.arange(len(keys)).astype(np.uint16),
    }
    np.savez(path, **(arrays | changed))  # type: ignore[arg-type]


def key(p: int, y: int, x: int, b: int) -> int:
    return ((p * 34 + y) * 34 + x) * 512 + b


def test_sparse_frames_round_trip_in_five_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / nmnist.FRAMES_FILE
    keys = [[key(0, 0, i % 34, 0), key(0, 0, i % 34, 0), key(1, 33, 33, 299)] for i in range(80)]
    write_frames(path, keys)
    with pytest.raises(DataError, match="SHA-256 is"):
        load("n-mnist", folder=tmp_path)
    monkeypatch.setattr(nmnist, "FRAMES_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    tested = []
    for fold in range(5):
        data = load("nmnist", folder=tmp_path, fold=fold, steps=300, step_ms=1, counts=True)
        parts = [data.splits[part].indices for part in ("train", "validation", "test")]
        assert [len(part) for part in parts] == [48, 16, 16]
        assert sorted(np.concatenate(parts).tolist()) == list(range(80))
        assert np.bincount(data.splits["test"].y).tolist() == [2] * 8
        tested += parts[2].tolist()
        x, _ = next(iter(data.batches("test", batch_size=1)))
        assert list(x.shape) == [300, 1, 2, 34, 34]
        assert (x[0, 0, 0, 0, parts[2][0] % 34], x[299, 0, 1, 33, 33], x.sum()) == (2, 1, 3)
    assert sorted(tested) == list(range(80)), "every sample is tested once"
    with pytest.raises(DataError, match="fold=5; expected 0 to 4"):
        load("n-mnist", folder=tmp_path, fold=5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"offsets": np.array([0, 1, 1])}, "offsets do not cut 3 events into 2 samples, none empty"),
        ({"offsets": np.array([0, 4, 3])}, "offsets do not cut"),
        ({"offsets": np.array([0, 1, 2])}, "offsets do not cut"),
        ({"offsets": np.array([0, 1])}, "offsets do not cut"),
        ({"hi": np.zeros(4, np.uint16)}, "offsets do not cut"),
        ({"n_bins": np.full(2, 7, np.uint16)}, "sample 0 has an event in cell 3, bin 7; expected .* bins below 7"),
        ({"hi": np.full(3, 60_000, np.uint16)}, "expected cells below 2312"),
    ],
)
def test_bad_sparse_frames(tmp_path: Path, changed: dict[str, np.ndarray], message: str) -> None:
    write_frames(tmp_path / "f.npz", [[key(0, 0, 3, 7)], [key(0, 0, 3, 7), key(1, 0, 0, 0)]], **changed)
    with pytest.raises(DataError, match=message):
        read_sparse_frames(tmp_path / "f.npz")


# --- the real files -----------------------------------------------------------------------


def test_real_raw_events(real: Callable[..., Path]) -> None:
    data_folder = real("n-mnist/nmnist_1100_raw.tar.xz", "mnist/train-images-idx3-ubyte.gz")
    data = load("n-mnist-raw", folder=data_folder, counts=True)
    train, test = data.splits["train"].source, data.splits["test"].source
    assert np.bincount(train.labels).tolist() == [97, 116, 99, 93, 105, 92, 94, 117, 87, 100]
    assert np.bincount(test.labels).tolist() == [8, 14, 8, 11, 14, 7, 10, 15, 2, 11]
    mnist = [load("mnist", folder=data_folder).splits[part].source for part in ("train", "test")]
    assert np.array_equal(train.labels, mnist[0].labels[:1000]), "recording n is image n of MNIST"
    assert np.array_equal(test.labels, mnist[1].labels[:100])
    total = sum(float(source.take(np.arange(len(source.labels))).sum()) for source in (train, test))
    assert total == 4_518_827, "no event is lost, no event is after 340 ms"


def test_real_frames_are_the_filtered_raw_events(real: Callable[..., Path]) -> None:
    """Samples that are in both files: filter and bin the raw ones as the README says, compare every event."""
    data_folder = real(
        "n-mnist/nmnist_1100_raw.tar.xz", "n-mnist/nmnist_1ms_8class.npz", "mnist/train-images-idx3-ubyte.gz"
    )
    transforms = pytest.importorskip("tonic.transforms")
    found = data_folder / "n-mnist"
    frames, arrays = read_sparse_frames(found / nmnist.FRAMES_FILE, sha256=nmnist.FRAMES_SHA256)
    labels = load("mnist", folder=data_folder).splits["train"].source.labels
    by_class = np.concatenate([np.flatnonzero(labels == digit) for digit in range(10)])
    number = by_class[arrays["source_index"]]
    assert np.array_equal(labels[number], arrays["labels"])
    both = np.flatnonzero(number < 1000)
    assert len(both) == 82
    raw = load("n-mnist-raw", folder=data_folder).splits["train"].source.recordings
    for sample in both[::20]:
        cell, t_us = raw.events(int(number[sample]))
        events = np.zeros(len(cell), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
        p, y, x = np.unravel_index(cell, (2, 34, 34))
        events["x"], events["y"], events["p"], events["t"] = x, y, p, t_us
        kept = transforms.Denoise(filter_time=10_000)(events)
        tick = (kept["t"] - kept["t"][0]) // 1000
        inside = tick < arrays["n_bins"][sample]
        expected = (((kept["p"] * 34 + kept["y"]) * 34 + kept["x"]) * 512 + tick)[inside]
        found_cell, found_tick = frames.events(int(sample))
        assert np.array_equal(np.sort(expected), found_cell * 512 + found_tick)


def test_real_frames(real: Callable[..., Path]) -> None:
    data_folder = real("n-mnist/nmnist_1ms_8class.npz")
    data = load("n-mnist", folder=data_folder, fold=2, counts=True)
    assert [len(data.splits[part]) for part in ("train", "validation", "test")] == [2400, 800, 800]
    assert np.bincount(data.splits["test"].y).tolist() == [100] * 8
    digest = hashlib.sha256(data.splits["test"].indices.astype("<i8").tobytes()).hexdigest()
    assert digest == "6a7a3d7be28bad03e2cf8b177c66c0b73f5c8b9a1d76fbb3b4e4e5acd981f29d"
    x, _ = next(iter(data.batches("test", batch_size=8)))
    assert (list(x.shape), x.dtype) == ([10, 8, 2, 34, 34], torch.float32)
    offsets = data.splits["test"].source.recordings.offsets
    assert float(x.sum()) == sum(offsets[i + 1] - offsets[i] for i in data.splits["test"].indices[:8])
    spikes, _ = next(iter(load("n-mnist", folder=data_folder, fold=2).batches("test", batch_size=8)))
    assert torch.equal(spikes, x.clamp(max=1)), "without counts a pixel spikes or does not"

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets

from spikequant.data import download, load
from spikequant.data.download import DOWNLOADS, Download, ensure, write_idx_files
from spikequant.data.mnist import MNIST
from spikequant.data.places import Form, Places
from spikequant.law.errors import DataError

PLACES = Places("toy", ("toy",), (Form("the two files", ("a.bin", "b.bin")),), "They are published at example.org.")


class Fetcher:
    """Stands for a library: counts its calls, writes some files and may fail after that."""

    def __init__(self, files: tuple[str, ...] = ("a.bin", "b.bin"), error: Exception | None = None) -> None:
        self.calls = 0
        self.files = files
        self.error = error

    def __call__(self, target: Path) -> None:
        self.calls += 1
        for file in self.files:
            (target / file).write_bytes(b"arrived")
        if self.error:
            raise self.error


def toy(fetcher: Fetcher) -> Download:
    return Download(PLACES, "some-library", 1, fetcher)


def everything_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_files_are_fetched_once(tmp_path: Path) -> None:
    fetcher = Fetcher()
    for _ in range(3):
        ensure("toy", toy(fetcher), tmp_path / "new")
    assert fetcher.calls == 1
    assert everything_in(tmp_path / "new") == ["toy", "toy/a.bin", "toy/b.bin"]


def test_files_that_are_there_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy").mkdir()
    for file in ("a.bin", "b.bin"):
        (tmp_path / "toy" / file).write_bytes(b"mine")
    fetcher = Fetcher()
    monkeypatch.setenv("SPIKEQUANT_DATA", str(tmp_path))
    ensure("toy", toy(fetcher), None)
    assert fetcher.calls == 0
    assert (tmp_path / "toy" / "a.bin").read_bytes() == b"mine"


def test_offline_says_what_to_put_where_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        ensure("toy", toy(Fetcher(("a.bin",), OSError("Name or service not known"))), tmp_path)
    assert str(raised.value) == (
        "toy: the download by some-library failed (OSError: Name or service not known). Is there a network? "
        f"Without one, put the files into {tmp_path / 'toy'} yourself: a.bin, b.bin. They are published at example.org."
    )
    assert everything_in(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(tmp_path: Path) -> None:
    class Stopping(Fetcher):
        def __call__(self, target: Path) -> None:
            super().__call__(target)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure("toy", toy(Stopping()), tmp_path)
    assert everything_in(tmp_path) == []


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="toy: it is fetched by some-library; pip install some-library"):
        ensure("toy", toy(Fetcher(error=ImportError("no"))), tmp_path)


def test_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKEQUANT_DATA", raising=False)
    with pytest.raises(DataError, match="toy: no folder to look in; pass folder="):
        ensure("toy", toy(Fetcher()), None)


def test_load_fetches_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetcher = Fetcher((), OSError("offline"))
    monkeypatch.setitem(DOWNLOADS, "mnist", replace(DOWNLOADS["mnist"], fetch=fetcher))
    with pytest.raises(DataError, match="none has all of"):
        load("mnist", folder=tmp_path)
    assert fetcher.calls == 0
    with pytest.raises(DataError, match="put the files into .* yourself: train-images-idx3-ubyte.gz"):
        load("mnist", folder=tmp_path, download=True)
    assert fetcher.calls == 1


def test_what_nobody_offers_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No library fetches them for spikequant"):
        load("cifar10", folder=tmp_path, download=True)
    with pytest.raises(DataError, match="Nobody offers this file for download"):
        load("n-mnist", folder=tmp_path, download=True)


def test_openml_rows_become_the_published_files(
    real: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_folder = real("mnist/train-images-idx3-ubyte.gz")
    published = load("mnist", folder=data_folder)
    sources = [published.splits[part].source for part in ("train", "test")]
    rows = np.concatenate([source.x.reshape(-1, 784) for source in sources])
    labels = np.concatenate([source.y for source in sources]).astype(str).astype(object)

    def fetch_openml(name: str, **options: object) -> SimpleNamespace:
        assert name == "mnist_784"
        Path(str(options["data_home"])).mkdir()
        return SimpleNamespace(data=rows.astype(np.int64), target=labels)

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch_openml)
    fetched = load("mnist", folder=tmp_path, download=True)
    assert everything_in(tmp_path / "mnist") == sorted(MNIST.places.forms[1].files)
    for part in ("train", "validation", "test"):
        assert np.array_equal(fetched.splits[part].indices, published.splits[part].indices)
    assert np.array_equal(fetched.splits["test"].source.take(np.arange(10_000)), sources[1].x)
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0\0\1\7")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte \(unpacked\): SHA-256 is"):
        load("mnist", folder=tmp_path)


def test_rows_that_are_not_the_published_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mnist: arrived as \[3, 784\] pixels and 3 labels"):
        write_idx_files(np.zeros((3, 784)), np.zeros(3), MNIST, tmp_path)
    with pytest.raises(DataError, match="train-images-idx3-ubyte as it arrived: SHA-256 is"):
        write_idx_files(np.zeros((70_000, 784), np.uint8), np.zeros(70_000), MNIST, tmp_path)
    assert everything_in(tmp_path) == []


def test_tonic_folders_end_where_the_loaders_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that leaves the files where tonic 1.6 leaves them."""

    def nmnist(save_to: str, train: bool) -> None:
        part = "Train" if train else "Test"
        for digit in range(10):
            folder = Path(save_to, "NMNIST", part, str(digit))
            folder.mkdir(parents=True)
            (folder / f"{digit + 1:05d}.bin").write_bytes(bytes([1, 1, 0, 0, 1]))
        Path(save_to, "NMNIST", f"{part.lower()}.zip").write_bytes(b"zip")

    def shd(save_to: str, train: bool) -> None:
        Path(save_to, "SHD").mkdir(exist_ok=True)
        Path(save_to, "SHD", f"shd_{'train' if train else 'test'}.h5").write_bytes(b"h5")

    stand_in = ModuleType("tonic.datasets")
    stand_in.NMNIST, stand_in.SHD = nmnist, shd  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tonic", ModuleType("tonic"))
    monkeypatch.setitem(sys.modules, "tonic.datasets", stand_in)
    data = load("n-mnist-raw", folder=tmp_path, download=True)
    assert (len(data.splits["test"]), data.splits["test"].y.tolist()) == (10, list(range(10)))
    ensure("shd-train-test", DOWNLOADS["shd-train-test"], tmp_path)
    assert everything_in(tmp_path / "shd") == ["shd_test.h5", "shd_train.h5"]


def test_every_download_is_a_known_data_set_with_a_hint() -> None:
    for name, item in download.DOWNLOADS.items():
        assert item.places.name == name
        assert "--download" in item.places.how_to_get

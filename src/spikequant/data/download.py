"""Downloads, by libraries, of data sets that somebody publishes; only when asked for."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.data.checked_files import check_sum
from spikequant.data.mnist import FASHION_MNIST, IDX_FILES, MNIST, IdxFiles
from spikequant.data.nmnist_raw import RAW_PLACES
from spikequant.data.places import Places, root_of
from spikequant.data.shd import FOLD_PLACES, PUBLISHED_PLACES
from spikequant.law.errors import DataError

TRAIN_IMAGES = 60_000


@dataclass(frozen=True)
class Download:
    """How a data set is fetched: ``fetch(target)`` fills the empty folder `target`.

    `megabytes` is about what travels, for the progress bar.
    """

    places: Places
    library: str
    megabytes: int
    fetch: Callable[[Path], None]


def ensure(name: str, download: Download, folder: Path | str | None) -> None:
    """Fetch the files of a data set into `folder`, unless they are there already.

    They arrive in a temporary folder inside `folder` and are moved to their place when all of
    them have arrived, so an interrupted download leaves nothing behind.

    Raises:
        DataError: the library is missing, there is no network, or what arrived is not the
            published file.
    """
    root = root_of(name, folder, download.places.folders[0])
    try:
        download.places.find(root)
    except DataError:
        _fetch(name, download, root)


def _fetch(name: str, download: Download, root: Path) -> None:
    target = root / download.places.folders[0]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=root) as temporary:
            arrived = Path(temporary)
            with _progress(f"{name} by {download.library}", arrived, download.megabytes):
                download.fetch(arrived)
            target.mkdir(exist_ok=True)
            for path in sorted(arrived.iterdir()):
                shutil.move(path, target / path.name)
    except DataError:
        raise
    except ImportError as error:
        raise DataError(f"{name}: it is fetched by {download.library}; pip install {download.library}") from error
    except Exception as error:  # a library may fail in any way; what to do about it is the same
        wanted = " or ".join(", ".join(form.files) for form in download.places.forms)
        raise DataError(
            f"{name}: the download by {download.library} failed ({type(error).__name__}: {error}). Is there a network? "
            f"Without one, put the files into {target} yourself: {wanted}. {download.places.how_to_get}"
        ) from error


@contextmanager
def _progress(title: str, folder: Path, megabytes: int) -> Iterator[None]:
    """A progress bar on standard error that watches how much has arrived in `folder`."""
    from rich.console import Console
    from rich.progress import Progress

    done = threading.Event()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{title}, about {megabytes} MB", total=megabytes)

        def watch() -> None:
            while not done.wait(0.2):
                bar.update(task, completed=min(_size(folder) / 1e6, megabytes))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # moved or removed in between
            continue
    return total


def _openml(data_id_name: str, files: IdxFiles) -> Callable[[Path], None]:
    def fetch(target: Path) -> None:
        fetch_openml = import_module("sklearn.datasets").fetch_openml
        table = fetch_openml(data_id_name, version=1, as_frame=False, parser="liac-arff", data_home=target / "openml")
        write_idx_files(np.asarray(table.data), np.asarray(table.target), files, target)
        shutil.rmtree(target / "openml", ignore_errors=True)

    return fetch


def write_idx_files(x: npt.NDArray[Any], y: npt.NDArray[Any], files: IdxFiles, target: Path) -> None:
    """Write 70,000 rows of pixels and labels as the four published idx files, unpacked.

    Raises:
        DataError: rows of another size, or content that is not the published one.
    """
    name = files.places.name
    if x.ndim != 2 or x.shape[1] != 784 or len(x) != len(y) or len(x) <= TRAIN_IMAGES:
        raise DataError(f"{name}: arrived as {list(x.shape)} pixels and {len(y)} labels, expected 70000 x 784")
    images, labels = x.astype(np.uint8).reshape(-1, 28, 28), y.astype(np.uint8)
    parts = (slice(0, TRAIN_IMAGES), slice(TRAIN_IMAGES, None))
    arrays = [array[part] for part in parts for array in (images, labels)]
    for file, array, sha256 in zip(IDX_FILES, arrays, files.sha256, strict=True):
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
        check_sum(content, f"{name}: {file} as it arrived", sha256=sha256)
        (target / file).write_bytes(content)


def _tonic_nmnist(target: Path) -> None:
    datasets = import_module("tonic.datasets")
    for train in (True, False):
        datasets.NMNIST(save_to=str(target), train=train)
    for part in ("Train", "Test"):
        shutil.move(target / "NMNIST" / part, target / part)
    shutil.rmtree(target / "NMNIST")


def _tonic_shd(parts: tuple[str, ...]) -> Callable[[Path], None]:
    def fetch(target: Path) -> None:
        datasets = import_module("tonic.datasets")
        for part in parts:
            datasets.SHD(save_to=str(target), train=part == "train")
            shutil.move(target / "SHD" / f"shd_{part}.h5", target / f"shd_{part}.h5")
        shutil.rmtree(target / "SHD")

    return fetch


DOWNLOADS = {
    "mnist": Download(MNIST.places, "scikit-learn", 15, _openml("mnist_784", MNIST)),
    "fashion-mnist": Download(FASHION_MNIST.places, "scikit-learn", 36, _openml("Fashion-MNIST", FASHION_MNIST)),
    "n-mnist-raw": Download(RAW_PLACES, "tonic", 1200, _tonic_nmnist),
    "shd": Download(FOLD_PLACES, "tonic", 40, _tonic_shd(("test",))),
    "shd-train-test": Download(PUBLISHED_PLACES, "tonic", 170, _tonic_shd(("train", "test"))),
}

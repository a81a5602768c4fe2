"""All data sets by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from spikequant.data.cifar import load_cifar10, load_cifar100
from spikequant.data.dataset import DataSet
from spikequant.data.digits import load_digits
from spikequant.data.download import DOWNLOADS, ensure
from spikequant.data.dvs128 import load_aedat2, load_dvs128_objects
from spikequant.data.event_files import load_cifar10_dvs, load_ncaltech101
from spikequant.data.gesture import load_dvs_gesture
from spikequant.data.image_sets import with_validation
from spikequant.data.mnist import load_fashion_mnist, load_mnist
from spikequant.data.nmnist import load_nmnist
from spikequant.data.nmnist_raw import load_nmnist_raw
from spikequant.data.shd import load_shd, load_shd_train_test
from spikequant.law.errors import DataError

_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the caller of `load` asked for beside the name; None means: as documented."""

    folder: Path | str | None = None
    fold: int | None = None
    steps: int | None = None
    step_ms: float | None = None
    window_ms: float | None = None
    counts: bool | None = None


@dataclass(frozen=True)
class _Entry:
    title: str
    load: Callable[[Request], DataSet]
    options: tuple[str, ...] = ()


def _digits(request: Request) -> DataSet:
    return with_validation(load_digits(), 180, class_names=_DIGITS, scale=1 / 16)


def _mnist(request: Request) -> DataSet:
    return with_validation(load_mnist(request.folder), 5000, class_names=_DIGITS)


def _fashion_mnist(request: Request) -> DataSet:
    return with_validation(load_fashion_mnist(request.folder), 5000, class_names=_CLOTHES)


def _cifar10(request: Request) -> DataSet:
    images = load_cifar10(request.folder)
    part = len(images.test) < 10_000
    notes = (f"the test set is {len(images.test):,} of the 10,000 published images",) if part else ()
    return with_validation(images, 5000, class_names=_CIFAR10, notes=notes)


def _cifar100(request: Request) -> DataSet:
    return with_validation(load_cifar100(request.folder), 5000, class_names=tuple(map(str, range(100))))


def _nmnist(r: Request) -> DataSet:
    return load_nmnist(r.folder, fold=r.fold or 0, steps=r.steps, step_ms=r.step_ms, counts=bool(r.counts))


def _nmnist_raw(r: Request) -> DataSet:
    return load_nmnist_raw(r.folder, steps=r.steps, step_ms=r.step_ms, counts=bool(r.counts))


def _shd(r: Request) -> DataSet:
    return load_shd(r.folder, fold=r.fold or 0, steps=r.steps, step_ms=r.step_ms)


def _shd_train_test(r: Request) -> DataSet:
    return load_shd_train_test(r.folder, steps=r.steps, step_ms=r.step_ms)


def _dvs_gesture(r: Request) -> DataSet:
    return load_dvs_gesture(r.folder, steps=r.steps, step_ms=r.step_ms, counts=bool(r.counts))


def _cifar10_dvs(r: Request) -> DataSet:
    return load_cifar10_dvs(r.folder, steps=r.steps, step_ms=r.step_ms, counts=bool(r.counts))


def _ncaltech101(r: Request) -> DataSet:
    return load_ncaltech101(r.folder, steps=r.steps, step_ms=r.step_ms, counts=bool(r.counts))


def _dvs128_objects(r: Request) -> DataSet:
    window = 200 if r.window_ms is None else r.window_ms
    return load_dvs128_objects(r.folder, window_ms=window, steps=r.steps, step_ms=r.step_ms, counts=bool(r.counts))


def _aedat2(r: Request) -> DataSet:
    window = 200 if r.window_ms is None else r.window_ms
    return load_aedat2(r.folder, window_ms=window, steps=r.steps, step_ms=r.step_ms, counts=bool(r.counts))


_TIME = ("steps", "step_ms")
_FRAMES = (*_TIME, "counts")
_REGISTRY = {
    "digits": _Entry("scikit-learn's handwritten digits, 8 x 8; comes with the installation", _digits),
    "mnist": _Entry("MNIST handwritten digits, 28 x 28", _mnist),
    "fashion-mnist": _Entry("Fashion-MNIST clothing, 28 x 28", _fashion_mnist),
    "cifar10": _Entry("CIFAR-10 colour images of 10 things, 32 x 32", _cifar10),
    "cifar100": _Entry("CIFAR-100 colour images of 100 things, 32 x 32", _cifar100),
    "n-mnist": _Entry("N-MNIST, digits 0 to 7 before an event camera, 4,000 in 5 folds", _nmnist, ("fold", *_FRAMES)),
    "n-mnist-raw": _Entry("N-MNIST from its published event files, published split", _nmnist_raw, _FRAMES),
    "shd": _Entry("Spiking Heidelberg Digits, the 2,264 test samples in 5 folds", _shd, ("fold", *_TIME)),
    "shd-train-test": _Entry("Spiking Heidelberg Digits, published split (HDF5 files)", _shd_train_test, _TIME),
    "dvs-gesture": _Entry("DVS128 Gesture, 11 gestures of 29 people, published split", _dvs_gesture, _FRAMES),
    "cifar10-dvs": _Entry("CIFAR10-DVS, CIFAR-10 before a DVS128, 10,000 recordings", _cifar10_dvs, _FRAMES),
    "n-caltech101": _Entry("N-Caltech101, 101 things before an event camera", _ncaltech101, _FRAMES),
    "dvs128-objects": _Entry("5 objects before a DVS128, cut into windows", _dvs128_objects, ("window_ms", *_FRAMES)),
    "aedat2": _Entry("DVS128 recordings of your own, train/<class>.aedat", _aedat2, ("window_ms", *_FRAMES)),
}


def names() -> dict[str, str]:
    """The names that `load` takes, each with one line on the data set.

    >>> list(names())[:2]
    ['digits', 'mnist']
    """
    return {name: entry.title for name, entry in _REGISTRY.items()}


def load(
    name: str,
    *,
    folder: Path | str | None = None,
    fold: int | None = None,
    steps: int | None = None,
    step_ms: float | None = None,
    window_ms: float | None = None,
    counts: bool | None = None,
    download: bool = False,
) -> DataSet:
    """The data set of this name, with its documented splits (`docs/data.md`).

    Upper case, spaces and hyphens in `name` do not matter.  `folder` is the folder of all data
    sets or the folder of this one; without it ``SPIKEQUANT_DATA`` names it.

    Event data take `steps` (time steps T) and `step_ms` (length of a step), recordings that
    are cut into samples `window_ms`, frames of pixels `counts` (how many events a pixel sent in
    a step, not only whether); data sets split in folds take `fold`, the fold to test on.
    `download` lets a library fetch missing files into the folder (see `spikequant.data.download`).

    Raises:
        DataError: unknown name, an option that this data set does not take, files that are
            missing or are not what they must be.

    >>> data = load("digits")
    >>> data.classes, data.sample_shape, data.layout, data.scale
    (10, (1, 8, 8), 'NCHW', 0.0625)
    >>> [len(data.splits[part]) for part in ("train", "validation", "test")]
    [1257, 180, 360]
    """
    key = _canonical(name)
    entry = _REGISTRY[key]
    request = Request(folder=folder, fold=fold, steps=steps, step_ms=step_ms, window_ms=window_ms, counts=counts)
    for option in (field.name for field in fields(Request)):
        if getattr(request, option) is not None and option not in ("folder", *entry.options):
            takes = ", ".join(("folder", *entry.options))
            raise DataError(f"{key} has no {option}, got {option}={getattr(request, option)}; it takes {takes}")
    if download and key in DOWNLOADS:
        ensure(key, DOWNLOADS[key], folder)
    return entry.load(request)


def _canonical(name: str) -> str:
    plain = {re.sub("[^a-z0-9]", "", key): key for key in _REGISTRY}
    key = plain.get(re.sub("[^a-z0-9]", "", name.lower()))
    if key is None:
        raise DataError(f"no data set {name!r}; there are {', '.join(_REGISTRY)}")
    return key

"""CIFAR-10 and CIFAR-100 from the published archives, folders, or lossless WebP sheets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikequant.data.archives import tar_members
from spikequant.data.checked_files import check_file, read_file
from spikequant.data.cifar_batches import Batch, parse_binary_batch, parse_python_batch
from spikequant.data.cifar_sheets import read_sheet
from spikequant.data.images import ImageData, ImageSplit
from spikequant.data.npz import read_npz
from spikequant.data.places import Form, Places
from spikequant.law.errors import DataError

TRAIN_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
SHEET_SHA256 = {
    "data_batch_1.webp": "0c540445580e2b4751a4fb5e79175f3eced765d47d186c46cf6aaa7a076c47d9",
    "data_batch_2.webp": "ecd97fbddf53a95c7a487a46490001fbae20af0d14e0978cf2a8c74001ef5eb5",
    "data_batch_3.webp": "577efcbfc9a4ea051e4f915841300a1c1943948d918318615797528bd1931ae3",
    "data_batch_4.webp": "a362cd3478100abaef253b26a1c6c0979ac43379b30b03c5c774900ed8f3025c",
    "data_batch_5.webp": "dca43ff04bd60b6081d36b131a960c0ab9d7a4c2f6be4dc305f4248586327eb4",
    "labels.npz": "8ce4333581867aa62aa14a90ea97c20822b6de74856cc05100a90ddd44a3c58e",
    "test_1900.webp": "c8623e4a3e80f69ac704ce73d648b4292f579adfbb6cc427e1b9989c4c1d56e3",
}
SHEET_TEST_IMAGES = 1_900
_SHEET_LABELS = {"train": ("uint8", 1), "test": ("uint8", 1), "test_index": ("uint16", 1), "names": ("str", 1)}


@dataclass(frozen=True)
class _Published:
    """One published archive: its name and MD5, the folder in it, and the MD5 of each batch (None: not known)."""

    archive: str
    md5: str
    folder: str
    train: dict[str, str | None]
    test: dict[str, str | None]

    @property
    def packed(self) -> Form:
        return Form(f"the archive {self.archive}", (self.archive,))

    @property
    def unpacked(self) -> Form:
        return Form(f"the batches of {self.archive}", (*self.train, *self.test))


@dataclass(frozen=True)
class _Cifar:
    name: str
    classes: int
    label_key: str
    label_bytes: int
    python: _Published
    binary: _Published
    sheets: Form | None = None
    images: tuple[int, int] = (50_000, 10_000)

    @property
    def places(self) -> Places:
        forms = [form for version in (self.python, self.binary) for form in (version.unpacked, version.packed)]
        folders: tuple[str, ...] = (self.name, self.python.folder, self.binary.folder)
        folders += (f"{self.name}/{self.python.folder}", f"{self.name}/{self.binary.folder}")
        return Places(
            self.name,
            folders,
            (*forms, *([self.sheets] if self.sheets else [])),
            f"The archives are published at www.cs.toronto.edu/~kriz/cifar.html: {self.python.archive} has the MD5 "
            f"{self.python.md5}, {self.binary.archive} {self.binary.md5}. No library fetches them for spikequant.",
        )


_CIFAR10 = _Cifar(
    "cifar10",
    classes=10,
    label_key="labels",
    label_bytes=1,
    python=_Published(
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    ),
    binary=_Published(
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin",
        train={
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        },
        test={"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
    ),
    sheets=Form("lossless WebP sheets", (*(f"{name}.webp" for name in (*TRAIN_BATCHES, "test_1900")), "labels.npz")),
)
_CIFAR100 = _Cifar(
    "cifar100",
    classes=100,
    label_key="fine_labels",
    label_bytes=2,
    python=_Published(
        "cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    ),
    binary=_Published(
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-binary",
        train={"train.bin": None},
        test={"test.bin": None},
    ),
)


def load_cifar10(folder: Path | str | None = None) -> ImageData:
    """CIFAR-10: colour images of 10 things, 50,000 to train on and 10,000 to test on.

    Shapes: ``x [N, 3, 32, 32]`` uint8, red, green, blue; ``y [N]`` from 0 to 9.

    Reads, in `folder` or its subfolder ``cifar10`` (without `folder`: of ``SPIKEQUANT_DATA``):
    the published Python or binary version, archive or unpacked, or lossless WebP sheets.  Of
    the sheets the test set has 1,900 images: the first 1,000 and then every tenth.  All of
    them are checked against their checksums, and all give the same images in the same order.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.  No
    licence is stated; free for research use.

    Raises:
        DataError: none of the files are there, or one is not the published file.
    """
    return _load(_CIFAR10, folder)


def load_cifar100(folder: Path | str | None = None) -> ImageData:
    """CIFAR-100: colour images of 100 things, 50,000 to train on and 10,000 to test on.

    Shapes, source and search as in `load_cifar10`, with the folder name ``cifar100``; labels
    are the fine ones, 0 to 99.  There are no WebP sheets of it.

    Raises:
        DataError: none of the files are there, or one is not the published file.
    """
    return _load(_CIFAR100, folder)


def _load(cifar: _Cifar, folder: Path | str | None) -> ImageData:
    found, form = cifar.places.find(folder)
    if form is cifar.sheets:
        train, test = _read_sheets(found)
    else:
        version = cifar.python if form in (cifar.python.packed, cifar.python.unpacked) else cifar.binary
        batches = _archive(found, version) if form == version.packed else _folder(found, version)
        parsed = {name: _parse(cifar, version, name, raw, f"{found}/{name}") for name, raw in batches}
        missing = [name for name in (*version.train, *version.test) if name not in parsed]
        if missing:
            raise DataError(f"{found / version.archive}: lacks {', '.join(missing)}; fetch it again")
        train, test = (_join(parsed[name] for name in part) for part in (version.train, version.test))
    counts = (cifar.images[0], SHEET_TEST_IMAGES) if form is cifar.sheets else cifar.images
    for part, split, count in zip(("train", "test"), (train, test), counts, strict=True):
        if len(split) != count:
            raise DataError(f"{found}: {cifar.name} has {len(split)} {part} images here, expected {count}")
    return ImageData(cifar.name, train=train, test=test, classes=cifar.classes)


def _archive(found: Path, version: _Published) -> Iterator[tuple[str, bytes]]:
    path = found / version.archive
    check_file(path, md5=version.md5)
    names = "|".join(map(re.escape, (*version.train, *version.test)))
    for name, raw in tar_members(path, f"{re.escape(version.folder)}/({names})"):
        yield name.removeprefix(f"{version.folder}/"), raw


def _folder(found: Path, version: _Published) -> Iterator[tuple[str, bytes]]:
    for name, md5 in (version.train | version.test).items():
        yield name, read_file(found / name, md5=md5, largest=1 << 28)


def _parse(cifar: _Cifar, version: _Published, name: str, raw: bytes, where: str) -> Batch:
    if version is cifar.python:
        return parse_python_batch(raw, where, label_key=cifar.label_key, classes=cifar.classes)
    return parse_binary_batch(raw, where, label_bytes=cifar.label_bytes, classes=cifar.classes)


def _join(batches: Iterable[Batch]) -> ImageSplit:
    x, y = zip(*batches, strict=True)
    return ImageSplit(np.concatenate(x), np.concatenate(y))


def _read_sheets(found: Path) -> tuple[ImageSplit, ImageSplit]:
    labels = read_npz(found / "labels.npz", _SHEET_LABELS, sha256=SHEET_SHA256["labels.npz"])
    x = np.empty((len(labels["train"]), 3, 32, 32), np.uint8)
    for k, name in enumerate(TRAIN_BATCHES):
        file = f"{name}.webp"
        x[10_000 * k : 10_000 * (k + 1)] = read_sheet(found / file, 10_000, sha256=SHEET_SHA256[file])
    test = read_sheet(found / "test_1900.webp", len(labels["test"]), sha256=SHEET_SHA256["test_1900.webp"])
    return ImageSplit(x, labels["train"].astype(np.int64)), ImageSplit(test, labels["test"].astype(np.int64))

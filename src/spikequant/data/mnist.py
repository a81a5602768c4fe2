"""MNIST and Fashion-MNIST from their four published idx files, packed or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikequant.data.idx import read_idx
from spikequant.data.images import ImageData, ImageSplit
from spikequant.data.places import Form, Places

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_PACKED = Form("the four published idx.gz files", tuple(f"{file}.gz" for file in IDX_FILES))
_PLAIN = Form("the four idx files unpacked", IDX_FILES)


@dataclass(frozen=True)
class IdxFiles:
    """Where the four files of a data set lie, and what they must be.

    ``md5`` are those of the published .gz files, ``sha256`` those of their unpacked content,
    in the order of `IDX_FILES`.
    """

    places: Places
    md5: tuple[str, str, str, str]
    sha256: tuple[str, str, str, str]


MNIST = IdxFiles(
    Places(
        "mnist",
        ("mnist", "MNIST/raw"),
        (_PACKED, _PLAIN),
        "They are published with torchvision and at yann.lecun.com; with a network, download=True (at the shell "
        "--download) fetches them from OpenML.",
    ),
    md5=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    sha256=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
FASHION_MNIST = IdxFiles(
    Places(
        "fashion-mnist",
        ("fashion-mnist", "FashionMNIST/raw"),
        (_PACKED, _PLAIN),
        "They are in the folder data/fashion of github.com/zalandoresearch/fashion-mnist; with a network, "
        "download=True (at the shell --download) fetches them from OpenML.",
    ),
    md5=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    sha256=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)


def load_mnist(folder: Path | str | None = None) -> ImageData:
    """MNIST: handwritten digits, 60,000 to train on and 10,000 to test on.

    Shapes: ``x [N, 1, 28, 28]`` uint8 from 0 to 255, ``y [N]`` from 0 to 9.

    `folder` holds the four idx.gz files, or a folder ``mnist`` (or torchvision's
    ``MNIST/raw``) that does.  Without it the folder named by ``SPIKEQUANT_DATA`` is searched
    in the same way.  Every file must have its published MD5.  The same files unpacked (no
    ``.gz``) are read, too; their content must have the published SHA-256.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to
    document recognition", Proc. IEEE 86(11), 1998.  Licence CC BY-SA 3.0.

    Raises:
        DataError: the files are not there (the message says where they were looked for), or
            one of them is not the published file.
    """
    return _load(MNIST, folder)


def load_fashion_mnist(folder: Path | str | None = None) -> ImageData:
    """Fashion-MNIST: clothing, 60,000 images to train on and 10,000 to test on.

    Shapes and search as in `load_mnist`, with the folder name ``fashion-mnist`` (or
    torchvision's ``FashionMNIST/raw``).

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747, 2017.  MIT.

    Raises:
        DataError: the files are not there, or one of them is not the published file.
    """
    return _load(FASHION_MNIST, folder)


def _load(files: IdxFiles, folder: Path | str | None) -> ImageData:
    found, form = files.places.find(folder)
    if form is _PACKED:
        arrays = [read_idx(found / file, md5=md5) for file, md5 in zip(form.files, files.md5, strict=True)]
    else:
        arrays = [read_idx(found / file, sha256=sha) for file, sha in zip(form.files, files.sha256, strict=True)]
    train_x, train_y, test_x, test_y = arrays
    return ImageData(
        files.places.name,
        train=ImageSplit(train_x[:, None], train_y.astype(np.int64)),
        test=ImageSplit(test_x[:, None], test_y.astype(np.int64)),
        classes=10,
    )

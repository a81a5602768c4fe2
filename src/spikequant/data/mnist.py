"""MNIST and Fashion-MNIST from their four published idx.gz files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from spikequant.data.idx import read_idx
from spikequant.data.images import ImageData, ImageSplit
from spikequant.law.errors import DataError

DATA_VARIABLE = "SPIKEQUANT_DATA"
"""Environment variable that names the folder of all data sets."""

_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION_MNIST_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)


def load_mnist(folder: Path | str | None = None) -> ImageData:
    """MNIST: handwritten digits, 60,000 to train on and 10,000 to test on.

    Shapes: ``x [N, 1, 28, 28]`` uint8 from 0 to 255, ``y [N]`` from 0 to 9.

    `folder` holds the four idx.gz files, or a folder ``mnist`` (or torchvision's
    ``MNIST/raw``) that does.  Without it the folder named by ``SPIKEQUANT_DATA`` is searched
    in the same way.  Every file must have its published MD5.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to
    document recognition", Proc. IEEE 86(11), 1998.  Licence CC BY-SA 3.0.

    Raises:
        DataError: the files are not there (the message says where they were looked for), or
            one of them is not the published file.
    """
    return _load("mnist", ("mnist", "MNIST/raw"), _MNIST_MD5, folder)


def load_fashion_mnist(folder: Path | str | None = None) -> ImageData:
    """Fashion-MNIST: clothing, 60,000 images to train on and 10,000 to test on.

    Shapes and search as in `load_mnist`, with the folder name ``fashion-mnist`` (or
    torchvision's ``FashionMNIST/raw``).

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747, 2017.  MIT.

    Raises:
        DataError: the files are not there, or one of them is not the published file.
    """
    return _load("fashion-mnist", ("fashion-mnist", "FashionMNIST/raw"), _FASHION_MNIST_MD5, folder)


def _load(name: str, folders: tuple[str, ...], md5s: tuple[str, ...], folder: Path | str | None) -> ImageData:
    found = _find(name, folders, folder)
    train_x, train_y, test_x, test_y = (read_idx(found / file, md5=md5) for file, md5 in zip(_FILES, md5s, strict=True))
    return ImageData(
        name,
        train=ImageSplit(train_x[:, None], train_y.astype(np.int64)),
        test=ImageSplit(test_x[:, None], test_y.astype(np.int64)),
        classes=10,
    )


def _find(name: str, folders: tuple[str, ...], folder: Path | str | None) -> Path:
    root = folder if folder is not None else os.environ.get(DATA_VARIABLE)
    if not root:
        raise DataError(
            f"{name}: no folder to look in; pass folder=, or set {DATA_VARIABLE} to a folder that has {folders[0]}/"
        )
    candidates = [Path(root, *place.split("/")) for place in folders] + [Path(root)]
    for candidate in candidates:
        if all((candidate / file).is_file() for file in _FILES):
            return candidate
    raise DataError(
        f"{name}: looked in {', '.join(map(str, candidates))}; none has all of {', '.join(_FILES)}. "
        f"Put the published files there, or name their folder with folder= or {DATA_VARIABLE}"
    )

"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels that need no download."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from spikequant.data.images import ImageData, ImageSplit

TEST_IMAGES_PER_CLASS = 36


def load_digits() -> ImageData:
    """The embedded digits with one fixed split: 1,437 images to train on, 360 to test on.

    Pixels are integers from 0 to 16 (not 255), so ``scale=1 / 16`` brings them to [0, 1].

    The split is part of the definition: in each class, the 36 images whose SHA-256 of
    ``"digits:<index>"`` is smallest are the test images; both parts keep the order of the
    source.  It needs no random generator and therefore never changes with one.

    Shapes: train ``x [1437, 1, 8, 8]``, test ``x [360, 1, 8, 8]``.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998 (its test set), CC BY 4.0, as packed by scikit-learn.

    >>> data = load_digits()
    >>> data.train.x.shape, data.test.x.shape, data.classes
    ((1437, 1, 8, 8), (360, 1, 8, 8), 10)
    >>> int(data.train.x.max()), np.bincount(data.test.y).tolist()
    (16, [36, 36, 36, 36, 36, 36, 36, 36, 36, 36])
    """
    from sklearn.datasets import load_digits as load_embedded  # slow to import, needed here only

    embedded = load_embedded()
    x = embedded.images.astype(np.uint8)[:, None]
    y = embedded.target.astype(np.int64)
    is_test = _test_mask(y)
    return ImageData(
        "digits",
        train=ImageSplit(x[~is_test], y[~is_test]),
        test=ImageSplit(x[is_test], y[is_test]),
        classes=10,
    )


def _test_mask(y: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    keys = np.array([hashlib.sha256(f"digits:{index}".encode()).hexdigest() for index in range(len(y))])
    mask = np.zeros(len(y), dtype=np.bool_)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        mask[members[np.argsort(keys[members])[:TEST_IMAGES_PER_CLASS]]] = True
    return mask

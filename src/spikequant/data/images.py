"""Labelled images as two arrays, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images with their labels; sample `i` of `x` has the label `y[i]`.

    Shapes: ``x [N, C, H, W]`` uint8, ``y [N]`` int64.

    Raises:
        DataError: another shape or type, no samples, or a label for each image missing.

    >>> split = ImageSplit(np.zeros((3, 1, 8, 8), np.uint8), np.array([4, 0, 9]))
    >>> len(split), split.x.shape, split.y.tolist()
    (3, (3, 1, 8, 8), [4, 0, 9])
    """

    x: npt.NDArray[np.uint8]
    y: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or self.x.dtype != np.uint8:
            raise DataError(f"images are uint8 of shape [N, C, H, W]; got {self.x.dtype} of shape {list(self.x.shape)}")
        if self.y.ndim != 1 or self.y.dtype != np.int64:
            raise DataError(f"labels are int64 of shape [N]; got {self.y.dtype} of shape {list(self.y.shape)}")
        if len(self.x) != len(self.y):
            raise DataError(f"every image needs one label; got {len(self.x)} images and {len(self.y)} labels")
        if len(self.x) == 0:
            raise DataError("a split holds at least one image; got none")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The labels, under the name that a source of batches has for them."""
        return self.y

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The images at `indices`, ``[n, C, H, W]``."""
        return self.x[indices]


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set for classification: what to train on, what to test on.

    ``classes`` is the number of labels, so that labels go from 0 to ``classes - 1``.

    Raises:
        DataError: a label outside that range, or images of two shapes.
    """

    name: str
    train: ImageSplit
    test: ImageSplit
    classes: int

    def __post_init__(self) -> None:
        for part, split in (("train", self.train), ("test", self.test)):
            low, high = int(split.y.min()), int(split.y.max())
            if low < 0 or high >= self.classes:
                raise DataError(f"{self.name}: {part} labels go from {low} to {high}, expected 0 to {self.classes - 1}")
        if self.train.x.shape[1:] != self.test.x.shape[1:]:
            raise DataError(
                f"{self.name}: train images are {list(self.train.x.shape[1:])} and "
                f"test images {list(self.test.x.shape[1:])}; expected one [C, H, W]"
            )

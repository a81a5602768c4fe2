"""Image data sets with a validation split, ready to give batches."""

from __future__ import annotations

import numpy as np

from spikequant.data.dataset import DataSet, Split
from spikequant.data.images import ImageData
from spikequant.data.splits import held_out


def with_validation(
    images: ImageData,
    count: int,
    *,
    class_names: tuple[str, ...],
    scale: float = 1 / 255,
    notes: tuple[str, ...] = (),
) -> DataSet:
    """The data set with `count` training images held out as validation, stratified.

    They are those that ``held_out("<name>-validation", y, count)`` names: a function of index
    and label alone.  The test images stay apart.

    Layout ``[N, C, H, W]``; `scale` brings pixels to 0 to 1.
    """
    is_validation = held_out(f"{images.name}-validation", images.train.y, count)
    return DataSet(
        name=images.name,
        splits={
            "train": Split(images.train, np.flatnonzero(~is_validation)),
            "validation": Split(images.train, np.flatnonzero(is_validation)),
            "test": Split(images.test, np.arange(len(images.test))),
        },
        class_names=class_names,
        sample_shape=images.train.x.shape[1:],
        layout="NCHW",
        scale=scale,
        notes=notes,
    )

"""Batches of torch tensors out of numpy arrays, in an order that can be replayed."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


@final
class ArrayBatches:
    """Batches ``(float32 x * scale, int64 y)`` of two arrays, as often as they are asked for.

    ``x_out = float32(x) * float32(scale)``

    Shapes: ``x [N, ...]`` of any real number type (images ``[N, C, H, W]``), ``y [N]``
    integers; each batch ``[B, ...]`` and ``[B]``, the last one may be smaller.

    With `shuffle` the order is a function of `seed` and the epoch alone.  Iterating does not
    advance the epoch, `set_epoch` does: two passes without it see the same batches.

    Raises:
        DataError: no samples, as many labels as samples not given, NaN or infinity in `x`,
            labels that are not integers, a batch size below 1, a negative seed, a scale
            that is 0 or not finite.

    >>> batches = ArrayBatches(np.arange(5, dtype=np.uint8).reshape(5, 1), np.arange(5), batch_size=2, scale=0.5)
    >>> len(batches)
    3
    >>> [x.flatten().tolist() for x, y in batches]
    [[0.0, 0.5], [1.0, 1.5], [2.0]]
    """

    def __init__(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        *,
        batch_size: int = 128,
        shuffle: bool = False,
        seed: int = 0,
        scale: float = 1.0,
    ) -> None:
        check_options(batch_size, seed, scale)
        _check(x, y)
        self._x = x
        self._y = y.astype(np.int64)
        self._scale = np.float32(scale)
        self._epoch = 0
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed

    @property
    def samples(self) -> int:
        """Number of samples in one pass."""
        return len(self._y)

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next passes; without `shuffle` it changes nothing."""
        if epoch < 0:
            raise DataError(f"epochs count from 0, got {epoch}")
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        import torch  # loading digits should not cost an import of torch

        order = batch_order(self.samples, self.shuffle, self.seed, self._epoch)
        for start in range(0, self.samples, self.batch_size):
            chosen = order[start : start + self.batch_size]
            scaled = self._x[chosen].astype(np.float32) * self._scale
            yield torch.from_numpy(scaled), torch.from_numpy(self._y[chosen])


def batch_order(samples: int, shuffle: bool, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Order of the samples in one pass: as they are, or shuffled by `seed` and `epoch` alone."""
    if not shuffle:
        return np.arange(samples)
    return np.random.default_rng([seed, epoch]).permutation(samples)


def check_options(batch_size: int, seed: int, scale: float) -> None:
    """Raise `DataError` on a batch size below 1, a negative seed, or a scale that is 0 or not finite."""
    if batch_size < 1:
        raise DataError(f"a batch holds at least 1 sample, got batch_size={batch_size}")
    if seed < 0:
        raise DataError(f"a seed is 0 or more, got {seed}")
    if not isfinite(scale) or scale == 0:
        raise DataError(f"a scale is a finite number other than 0, got {scale}")


def _check(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
    if x.ndim < 1 or y.ndim != 1 or len(x) != len(y):
        raise DataError(f"expected x [N, ...] and y [N]; got x {list(x.shape)} and y {list(y.shape)}")
    if len(y) == 0:
        raise DataError("there is nothing to make batches of: x and y hold no samples")
    if y.dtype.kind not in "iu":
        raise DataError(f"labels are integers, got {y.dtype}; use y.astype(np.int64) if they are whole numbers")
    if x.dtype.kind not in "biuf":
        raise DataError(f"x holds real numbers, got {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        sample = int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0])
        raise DataError(f"x holds NaN or infinity, first in sample {sample}; remove or repair such samples")

"""A data set that gives batches: splits by name, in the layout that models take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, final

import numpy as np
import numpy.typing as npt

from spikequant.data.augment import Augment
from spikequant.data.batches import batch_order, check_options
from spikequant.law.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["NCHW", "TNCHW", "TNC"]
"""Axes of an input batch: N samples, T time steps, C channels, H rows, W columns."""


class Source(Protocol):
    """Samples that are decoded when they are asked for."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of each sample, ``[samples]``."""
        ...

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """These samples as one batch, in the layout of the data set."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Split:
    """Some samples of a source: sample `i` of the split is sample ``indices[i]`` of the source."""

    source: Source
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def y(self) -> npt.NDArray[np.int64]:
        """Labels ``[N]``, in the order of the split."""
        return self.source.labels[self.indices]


@final
class Batches:
    """Batches ``(float32 input * scale, int64 target)`` of a split, as often as they are asked for.

    Only one batch is decoded at a time.  With `shuffle` the order is a function of `seed` and
    the epoch alone; iterating does not advance the epoch, `set_epoch` does.
    """

    def __init__(
        self, split: Split, *, batch_axis: int, batch_size: int, shuffle: bool, seed: int, scale: float,
        augment: Augment | None = None,
    ) -> None:  # fmt: skip
        check_options(batch_size, seed, scale)
        self._split = split
        self._scale = np.float32(scale)
        self._epoch = 0
        self.batch_axis = batch_axis
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.augment = augment

    @property
    def samples(self) -> int:
        """Number of samples in one pass."""
        return len(self._split)

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next passes; without `shuffle` it changes nothing."""
        if epoch < 0:
            raise DataError(f"epochs count from 0, got {epoch}")
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        import torch  # loading data should not cost an import of torch

        order = batch_order(self.samples, self.shuffle, self.seed, self._epoch)
        for start in range(0, self.samples, self.batch_size):
            indices = self._split.indices[order[start : start + self.batch_size]]
            x = np.ascontiguousarray(self._split.source.take(indices), np.float32)
            if self.augment is not None:
                x = self.augment.batch(x, indices, self.batch_axis, self.seed, self._epoch)
            if self._scale != 1:
                x = x * self._scale
            yield torch.from_numpy(x), torch.from_numpy(self._split.source.labels[indices])


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """A data set for classification with fixed splits.

    Shapes: an input batch is ``[N, *sample_shape]``, for event data ``[T, N, *sample_shape]``
    with ``T = steps``; `layout` names the axes.  `batches` multiplies by `scale`.

    Raises:
        DataError: labels outside 0 to ``classes - 1``, or an empty split.

    >>> from spikequant.data import load
    >>> digits = load("digits")
    >>> print(digits)
    digits: 10 classes, input [N, 1, 8, 8] x 0.0625; train 1,257, validation 180, test 360
    >>> x, y = next(iter(digits.batches("test", batch_size=4)))
    >>> list(x.shape), float(x.max()), y.tolist()
    ([4, 1, 8, 8], 1.0, [0, 1, 3, 6])
    """

    name: str
    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    sample_shape: tuple[int, ...]
    layout: Layout
    scale: float
    steps: int | None = None
    step_ms: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part, split in self.splits.items():
            if len(split) == 0:
                raise DataError(f"{self.name}: the split {part!r} holds no samples")
            low, high = int(split.y.min()), int(split.y.max())
            if low < 0 or high >= self.classes:
                raise DataError(f"{self.name}: {part} labels go from {low} to {high}, expected 0 to {self.classes - 1}")

    def __str__(self) -> str:
        axes = ["N", *map(str, self.sample_shape)]
        axes = axes if self.steps is None else [str(self.steps), *axes]
        parts = ", ".join(f"{part} {len(split):,}" for part, split in self.splits.items())
        scale = "" if self.scale == 1 else f" x {self.scale:.4g}"
        lines = [f"{self.name}: {self.classes} classes, input [{', '.join(axes)}]{scale}; {parts}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    @property
    def classes(self) -> int:
        """Number of classes; labels go from 0 to ``classes - 1``."""
        return len(self.class_names)

    @property
    def batch_axis(self) -> int:
        """Axis of an input batch that counts samples: 0 for images, 1 for event data."""
        return self.layout.index("N")

    def split(self, name: str = "train") -> Split:
        """The split of this name; ``"train+validation"`` joins two, in the order of their source.

        Raises:
            DataError: no such split.
        """
        parts = name.split("+")
        unknown = [part for part in parts if part not in self.splits]
        if unknown or len(set(parts)) < len(parts):
            raise DataError(f"{self.name}: no split {name!r}; it has {', '.join(self.splits)}, and joins such as a+b")
        chosen = [self.splits[part] for part in parts]
        if len(chosen) == 1:
            return chosen[0]
        if any(split.source is not chosen[0].source for split in chosen):
            raise DataError(f"{self.name}: {name!r} lie in different files and cannot be joined; use them one by one")
        return Split(chosen[0].source, np.sort(np.concatenate([split.indices for split in chosen])))

    def batches(
        self,
        split: str = "train",
        *,
        batch_size: int = 128,
        shuffle: bool = False,
        seed: int = 0,
        scale: float | None = None,
        augment: Augment | None = None,
    ) -> Batches:
        """Batches of a split, for every verb that takes `batches`; `scale` replaces the suggested one.

        `augment` changes every sample anew in every epoch (`spikequant.data.augment`); it is for training.

        Raises:
            DataError: no such split, a batch size below 1, a negative seed, a scale that is 0
                or not finite.
        """
        return Batches(
            self.split(split),
            batch_axis=self.batch_axis,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            scale=self.scale if scale is None else scale,
            augment=augment,
        )

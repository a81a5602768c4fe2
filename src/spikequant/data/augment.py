"""Augmentation of training samples: images are shifted and mirrored, events rolled, mirrored, cut out and dropped.

What happens to a sample is a function of seed, epoch and the number of the sample alone, so a training replays whatever
the batch size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import DataError

Array = npt.NDArray[Any]


@final
@dataclass(frozen=True, kw_only=True)
class Augment:
    """What may happen to a sample ``[..., H, W]``, in this order; all frames of a sample are treated alike.

    Attributes:
        flip: mirrored from left to right, every second time.
        crop: shifted by up to so many pixels in each direction, 0 coming in (padding and cropping).
        roll: shifted likewise, what leaves on one side coming in on the other.
        cutout: a square of so many pixels becomes 0.
        drop: up to this share of the values becomes 0, each by itself.
        drop_time: up to this share of the time steps in a row becomes 0; for ``[T, C, H, W]``.

    Source: padding and cropping, He et al. 2016; roll, flip and cutout, Li et al., *Neuromorphic data augmentation for
    training spiking neural networks*, ECCV 2022; dropping of events and of times, Gu et al., *EventDrop*, IJCAI 2021.

    Raises:
        DataError: a negative size, or a share outside 0 to 1.
    """

    flip: bool = False
    crop: int = 0
    roll: int = 0
    cutout: int = 0
    drop: float = 0.0
    drop_time: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop", "roll", "cutout"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise DataError(f"Augment: {name} = {getattr(self, name)!r}; expected pixels, 0 or more")
        for name in ("drop", "drop_time"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"Augment: {name} = {getattr(self, name)!r}; expected a share, 0 to 1")

    def batch(self, x: Array, samples: npt.NDArray[np.int64], axis: int, seed: int, epoch: int) -> Array:
        """A batch whose axis `axis` counts the samples with these numbers; a copy."""
        made = np.array(x)
        for place, sample in enumerate(samples):
            rng = np.random.default_rng([seed, epoch, int(sample)])
            at = (slice(None),) * axis + (place,)
            made[at] = self.sample(made[at], rng)
        return made

    def sample(self, x: Array, rng: np.random.Generator) -> Array:
        """One sample ``[..., H, W]``; every number is drawn in the same order whatever is switched on.

        >>> x = np.arange(6.0).reshape(1, 2, 3)
        >>> Augment().sample(x, np.random.default_rng(0)).tolist() == x.tolist()
        True
        """
        height, width = x.shape[-2:]
        mirrored, down, right = rng.random() < 0.5, rng.random(), rng.random()
        top, left, share, start = rng.random(4)
        if self.flip and mirrored:
            x = x[..., ::-1]
        if self.crop:
            x = _shifted(x, _between(down, self.crop), _between(right, self.crop))
        if self.roll:
            x = np.roll(x, (_between(down, self.roll), _between(right, self.roll)), (-2, -1))
        if self.cutout:
            x = np.array(x)
            y0, x0 = int(top * height), int(left * width)
            x[..., y0 : y0 + self.cutout, x0 : x0 + self.cutout] = 0
        if self.drop_time and x.ndim > 3:
            x, count = np.array(x), int(self.drop_time * share * x.shape[0])
            first = int(start * (x.shape[0] - count + 1))
            x[first : first + count] = 0
        if self.drop:
            x = x * (rng.random(x.shape) >= self.drop * share)
        return x


IMAGES = Augment(flip=True, crop=4)
"""The usual one of CIFAR."""
EVENTS = Augment(flip=True, roll=5, cutout=16, drop=0.2, drop_time=0.2)


def _between(uniform: float, most: int) -> int:
    """A whole number from ``-most`` to `most`, of a number in ``[0, 1)``."""
    return int(uniform * (2 * most + 1)) - most


def _shifted(x: Array, down: int, right: int) -> Array:
    """`x` shifted, 0 coming in.

    >>> _shifted(np.array([[1, 2], [3, 4]]), 1, 0).tolist(), _shifted(np.array([[1, 2], [3, 4]]), 0, -1).tolist()
    ([[0, 0], [1, 2]], [[2, 0], [4, 0]])
    """
    made = np.zeros_like(x)
    height, width = x.shape[-2:]
    if abs(down) >= height or abs(right) >= width:
        return made
    to_y, from_y = slice(max(down, 0), height + min(down, 0)), slice(max(-down, 0), height + min(-down, 0))
    to_x, from_x = slice(max(right, 0), width + min(right, 0)), slice(max(-right, 0), width + min(-right, 0))
    made[..., to_y, to_x] = x[..., from_y, from_x]
    return made


__all__ = ["EVENTS", "IMAGES", "Augment"]

"""Data for a search: batches to calibrate and train on, and others to decide on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikequant.law.errors import DataError

Batch = tuple[Tensor, Tensor]
EVERY = 4
"""Without `validation` every fourth sample is held out."""
LEAST_SAMPLES = 2


@dataclass(frozen=True)
class KeptBatches:
    """Batches in memory; every epoch behind the first visits them in another order, a function of seed and epoch."""

    kept: tuple[Batch, ...]
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_epoch", 0)

    def __len__(self) -> int:
        return len(self.kept)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next passes; without a seed it changes nothing."""
        object.__setattr__(self, "_epoch", epoch)

    def __iter__(self) -> Iterator[Batch]:
        order = list(range(len(self.kept)))
        if self.seed is not None and self.__dict__["_epoch"]:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.__dict__["_epoch"])
            order = torch.randperm(len(order), generator=generator).tolist()
        return (self.kept[k] for k in order)


@dataclass(frozen=True, kw_only=True)
class Divided:
    """What to learn from, what to decide on, and where the second came from."""

    learn: Iterable[Batch]
    decide: Iterable[Batch]
    is_split: bool


def divided(
    batches: Iterable[Batch],
    validation: Iterable[Batch] | None,
    *,
    axis_of: Callable[[Tensor], int],
    seed: int,
    who: str = "shrink",
) -> Divided:
    """Training and deciding batches that can be walked over again and again.

    With `validation` both are taken as they are; an iterator, and a `validation` whose
    order changes from pass to pass, are read once into memory.  Without it `batches` are
    read once into memory and every fourth sample is held out (counted over all batches
    in their order of this first pass).  `axis_of` says which axis of an input counts samples,
    `who` is named in errors.

    Raises:
        DataError: no batch, or too few samples to hold any out.
    """
    if validation is not None:
        learn = _again(batches, f"{who}: batches", seed)
        decide = _again(validation, f"{who}: validation", None)
        if not isinstance(decide, KeptBatches) and not _is_fixed(decide, who):
            decide = KeptBatches(tuple(_read(decide, f"{who}: validation")))
        return Divided(learn=learn, decide=decide, is_split=False)
    kept = list(_read(batches, f"{who}: batches"))
    first, second = _halves(kept, axis_of(kept[0][0]))
    if not first or not second:
        raise DataError(
            f"{who}: too few samples to hold every {EVERY}th out; give more batches, or pass validation=..."
        )
    return Divided(learn=KeptBatches(tuple(first), seed), decide=KeptBatches(tuple(second)), is_split=True)


def _again(batches: Iterable[Batch], name: str, seed: int | None) -> Iterable[Batch]:
    """`batches`, or what an iterator holds."""
    if iter(batches) is batches:
        return KeptBatches(tuple(_read(batches, name)), seed)
    return batches


def _read(batches: Iterable[Any], name: str) -> Iterator[Batch]:
    number = 0
    for number, batch in enumerate(batches, start=1):  # noqa: B007
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise DataError(f"{name} must give (input, target) pairs, got {type(batch).__name__}")
        yield batch[0], batch[1]
    if number == 0:
        raise DataError(f"{name} gave no batch; expected at least one (input, target)")


def _is_fixed(batches: Iterable[Batch], who: str) -> bool:
    """Whether two passes start with the same batch."""
    first, second = next(iter(batches), None), next(iter(batches), None)
    if first is None or second is None:
        raise DataError(f"{who}: validation gave no batch; expected at least one (input, target)")
    return all(a.shape == b.shape and bool(torch.equal(a, b)) for a, b in zip(first, second, strict=True))


def _halves(batches: list[Batch], axis: int) -> tuple[list[Batch], list[Batch]]:
    """By sample where batches are large, by batch where they are small."""
    by_batch = len(batches[0][1]) < LEAST_SAMPLES * EVERY and len(batches) >= EVERY
    learn: list[Batch] = []
    decide: list[Batch] = []
    seen = 0
    for position, (x, y) in enumerate(batches):
        number = torch.full((len(y),), position) if by_batch else torch.arange(seen, seen + len(y))
        seen += len(y)
        is_held = number % EVERY == EVERY - 1
        for part, chosen in ((learn, ~is_held), (decide, is_held)):
            index = chosen.nonzero().reshape(-1)
            if len(index):
                part.append((x.index_select(axis, index), y.index_select(0, index)))
    return learn, decide


def at_first_epoch(batches: Iterable[Batch]) -> Iterable[Batch]:
    """`batches`, put back to their first epoch where they count them."""
    if hasattr(batches, "set_epoch"):
        batches.set_epoch(0)
    return batches


def length_of(batches: Iterable[Batch]) -> int | None:
    """How many batches there are, where it is known."""
    return len(batches) if isinstance(batches, Sized) else None

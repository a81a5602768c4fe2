"""What a batch of data is: how many bits its values take, a few samples of it, and its loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikequant.law.errors import DataError


def few_samples(x: Tensor, samples: int) -> Tensor:
    """A few samples of a batch, to read a graph off: the first ones, as many as no other axis has.

    Raises:
        DataError: no axis of `x` has the length `samples`.

    >>> few_samples(torch.zeros(3, 64, 2), 64).shape
    torch.Size([3, 4, 2])
    """
    axes = [axis for axis in (0, 1) if x.dim() > axis and x.shape[axis] == samples]
    if not axes:
        raise DataError(f"an input of shape {tuple(x.shape)} has {samples} targets; expected one per sample")
    if len(axes) > 1:  # which one is the batch cannot be told
        return x
    count = next(k for k in range(2, 9) if k not in x.shape)
    return x.index_select(axes[0], torch.arange(count, device=x.device) % samples)


def cut(x: Tensor, y: Tensor, most: int) -> list[tuple[Tensor, Tensor]]:
    """A batch in pieces of at most `most` samples.

    Raises:
        DataError: which axis holds the samples cannot be told.

    >>> [(tuple(a.shape), len(b)) for a, b in cut(torch.zeros(3, 5, 2), torch.zeros(5), 2)]
    [((3, 2, 2), 2), ((3, 2, 2), 2), ((3, 1, 2), 1)]
    """
    axes = [axis for axis in (0, 1) if x.dim() > axis and x.shape[axis] == len(y)]
    if len(axes) != 1:
        raise DataError(
            f"an input of shape {tuple(x.shape)} with {len(y)} targets cannot be cut into pieces: which axis holds the "
            "samples cannot be told; pass smaller batches instead"
        )
    return list(zip(torch.split(x, most, axes[0]), torch.split(y, most), strict=True))


def bits_of_data(x: Tensor) -> int:
    """Bits of one value of the input: those of the largest for whole numbers from 0, 32 for real data.

    >>> bits_of_data(torch.tensor([0.0, 1.0])), bits_of_data(torch.tensor([0.0, 5.0])), bits_of_data(torch.tensor(0.5))
    (1, 3, 32)
    """
    low, high = (float(end) for end in x.aminmax())
    whole = low >= 0 and high < 2**31 and bool((x == x.to(torch.int64)).all())
    return max(1, int(high).bit_length()) if whole else 32


def loss_of(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch as the caller's function gives it.

    Raises:
        DataError: the function cannot take these, gives no tensor, or something that does not depend on the outputs.

    >>> loss_of(torch.nn.functional.l1_loss, torch.ones(2, 3), torch.zeros(2, 3))
    tensor(1.)
    """
    told = f"scores of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}, {targets.dtype}"
    try:
        value = loss(outputs, targets)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"the loss cannot take {told}: {error}") from error
    if not isinstance(value, Tensor):
        raise DataError(f"the loss gave {type(value).__name__} for {told}; expected a tensor that holds one number")
    if outputs.requires_grad and not value.requires_grad:
        raise DataError("the loss does not depend on the outputs: it has no gradient (detached, or a constant?)")
    return value

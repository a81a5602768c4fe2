"""How a tensor is cut into the groups that share one scale, and what may enter a quantizer."""

from __future__ import annotations

import torch
from torch import Tensor

from spikequant.law.errors import DataError

_FLOAT32_INT_BITS = 24


def widened(x: Tensor, bits: int = _FLOAT32_INT_BITS) -> Tensor:
    """`x` in a float type that holds every integer of `bits` bits: float32, above 24 bits float64.

    Half precision would round codes above 2^8 (bfloat16) or 2^11 (float16).

    >>> widened(torch.zeros(1, dtype=torch.bfloat16)).dtype, widened(torch.zeros(1), 27).dtype
    (torch.float32, torch.float64)
    """
    if bits > _FLOAT32_INT_BITS or x.dtype == torch.float64:
        return x.to(torch.float64)
    return x.to(torch.float32)


def finite(x: Tensor) -> Tensor:
    """`x` detached and widened, after a check that a scale can be fitted to it.

    Raises:
        DataError: `x` is empty or holds NaN or infinity.
    """
    if x.numel() == 0:
        raise DataError(f"a scale cannot be fitted to an empty tensor of shape {tuple(x.shape)}; pass values")
    x = widened(x.detach())
    if not bool(torch.isfinite(x.amax() - x.amin())) and not bool(torch.isfinite(largest(x.reshape(1, -1))).all()):
        nan, inf = int(torch.isnan(x).sum()), int(torch.isinf(x).sum())
        raise DataError(
            f"a scale cannot be fitted to a tensor of shape {tuple(x.shape)} with {nan} NaN and {inf} infinite"
            " values; find the layer or batch that made them (a diverged training run, a division by 0)"
            " and fit again on finite values"
        )
    return x


def largest(rows: Tensor) -> Tensor:
    """Largest magnitude of each row, without a copy of all magnitudes.

    >>> largest(torch.tensor([[1.0, -3.0], [2.0, 0.5]])).tolist()
    [3.0, 2.0]
    """
    return torch.maximum(rows.amax(dim=1), -rows.amin(dim=1))


def channel_rows(x: Tensor, channel_axis: int | None) -> Tensor:
    """`x` as ``[channels, values]``: one row per scale (one row in all without an axis).

    >>> channel_rows(torch.arange(6.0).reshape(2, 3), 1).tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]

    Raises:
        DataError: `x` has no such axis.
    """
    if channel_axis is None:
        return x.reshape(1, -1)
    axis = _axis(x, channel_axis)
    return x.movedim(axis, 0).reshape(x.shape[axis], -1)


def scale_shape(x: Tensor, channel_axis: int | None) -> tuple[int, ...]:
    """Shape of the scale of `x`: ``()`` per tensor, else 1 everywhere but on the channel axis.

    >>> scale_shape(torch.zeros(8, 3, 5), -2), scale_shape(torch.zeros(8, 3), None)
    ((1, 3, 1), ())
    """
    if channel_axis is None:
        return ()
    axis = _axis(x, channel_axis)
    return tuple(size if i == axis else 1 for i, size in enumerate(x.shape))


def mean_like(x: Tensor, scale: Tensor, *, where: Tensor | None = None) -> Tensor:
    """Mean of `x` over the entries that share a scale, in the shape of `scale`; `where` picks entries (none: 0)."""
    if scale.dim() not in (0, x.dim()):
        raise DataError(
            f"a scale of shape {tuple(scale.shape)} does not belong to a tensor of shape {tuple(x.shape)};"
            " expected shape () or one with as many axes, as fit returns it"
        )
    axes = [i for i in range(x.dim()) if scale.dim() == 0 or scale.shape[i] == 1]
    if not axes:
        return x if where is None else x * where
    keep = scale.dim() > 0
    if where is None:
        return x.mean(dim=axes, keepdim=keep)
    return (x * where).sum(dim=axes, keepdim=keep) / where.sum(dim=axes, keepdim=keep).clamp(min=1)


def usable_scale(scale: Tensor) -> Tensor:
    """`scale` with 1 where it is 0 (an all-zero channel has codes 0 at any scale) and never subnormal.

    >>> usable_scale(torch.tensor([0.0, 0.5])).tolist()
    [1.0, 0.5]
    """
    return torch.where(scale > 0, scale.clamp(min=torch.finfo(scale.dtype).tiny), 1.0)


def _axis(x: Tensor, channel_axis: int) -> int:
    if not -x.dim() <= channel_axis < x.dim():
        raise DataError(
            f"channel_axis {channel_axis} was asked of a tensor of shape {tuple(x.shape)};"
            f" expected -{x.dim()} to {x.dim() - 1}, or None for one scale"
        )
    return channel_axis % x.dim()

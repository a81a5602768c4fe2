"""Products in floating point that holds integers: float32 in both orders of memory, bfloat16 mode, float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikequant.nn.products.geometry import Geometry


def sums(name: str, geometry: Geometry, x: Tensor, weight: Tensor, pad: Tensor | None = None) -> Tensor:
    """``[N, out, OH, OW]``, channels last in memory whatever the path, so that the layers behind run the same way."""
    if pad is not None and geometry.padding != (0, 0):
        x, geometry = padded(x, geometry, pad), geometry.unpadded()
    if name == "float64":
        x, weight = x.to(torch.float64), weight.to(torch.float64)
    with float32_products("bf16" if name == "bf16" else "ieee"):
        if geometry.is_flat(tuple(x.shape[2:])):
            return F.linear(x[:, :, 0, 0], weight[:, :, 0, 0])[:, :, None, None]
        if name != "float32":
            x = x.contiguous(memory_format=torch.channels_last)
            weight = weight.contiguous(memory_format=torch.channels_last)
        return geometry.apply(x, weight).contiguous(memory_format=torch.channels_last)


def padded(x: Tensor, geometry: Geometry, pad: Tensor) -> Tensor:
    """``[N, C, *size]`` with the border that the convolution would add, showing the codes of the value zero."""
    around = [(p, n) for p, n in zip(geometry.padding, x.shape[2:], strict=True)]
    shape = (x.shape[0], x.shape[1], *(n + 2 * p for p, n in around))
    wide = pad.to(x).reshape(1, -1, *([1] * len(around))).expand(shape).clone()
    wide[(slice(None), slice(None), *(slice(p, p + n) for p, n in around))] = x
    return wide


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Within it float32 products on a CPU have this precision (``ieee`` or ``bf16``) whatever the user's flags say."""
    backends: tuple[Any, ...] = (torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    kept = [backend.fp32_precision for backend in backends]
    if all(value in (precision, "none") for value in kept) and precision == "ieee":
        yield
        return
    try:
        for backend in backends:
            backend.fp32_precision = precision
        yield
    finally:
        for backend, value in zip(backends, kept, strict=True):
            backend.fp32_precision = value

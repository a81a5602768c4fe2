"""Inputs as bytes: padded, channels last, checked to be the whole numbers that the proof is about."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from spikequant.nn.memory import POOL
from spikequant.nn.products import kernels
from spikequant.nn.products.geometry import Geometry
from spikequant.nn.products.proof import Widths

GUARD = 64


@dataclass(frozen=True)
class ByteInput:
    """``[N, H, W, C]`` as ``value + shift`` in bytes, with the border of the convolution around it.

    Attributes:
        data: ``[N, Hp, Wp, Cp]``, `Cp` a multiple of 4, followed by bytes that may be read.
        live: how many values are not 0.
        binary: whether no value is above 1.
    """

    data: Tensor
    geometry: Geometry
    shape: tuple[int, ...]
    shift: int
    live: int
    binary: bool

    @property
    def density(self) -> float:
        """Share of values that are not 0."""
        return self.live / max(1, self.data.shape[0] * self.shape[1] * self.shape[2] * self.shape[3])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """``[N, out, OH, OW]``."""
        return (self.shape[0], self.geometry.weight_shape[0], *self.geometry.output_size(self.shape[2:]))

    def floats(self, dtype: torch.dtype) -> Tensor:
        """``[N, C, H, W]`` again, channels last."""
        _, channels, height, width = self.shape
        top, left = self.geometry.padding
        inner = self.data[:, top : top + height, left : left + width, :channels].permute(0, 3, 1, 2)
        out = POOL.empty(self.shape, dtype, last=True).copy_(inner)
        return out if self.shift == 0 else out.sub_(self.shift)

    def sizes(self) -> list[int]:
        """What the kernels want to know of the shapes."""
        _, padded_h, padded_w, padded_c = self.data.shape
        _, out, height, width = self.output_shape
        return [padded_h, padded_w, padded_c, height, width, out, *self.geometry.stride]

    def tap_offsets(self) -> list[int]:
        """Bytes from an output's first input to each tap's."""
        _, _, padded_w, padded_c = self.data.shape
        return self.geometry.tap_offsets(padded_w, padded_c)


def as_bytes(x: Tensor, geometry: Geometry, widths: Widths, pad: Tensor | None = None) -> ByteInput | None:
    """`x`: ``[N, C, H, W]`` as bytes; None if it holds anything but whole numbers within the widths.

    `pad` are the input codes of the value zero, per channel; the border shows them.
    """
    batch, channels, height, width = x.shape
    top, left = geometry.padding
    shape = (batch, height + 2 * top, width + 2 * left, -(-channels // 4) * 4)
    count = shape[0] * shape[1] * shape[2] * shape[3]
    flat = POOL.empty((count + GUARD,), torch.uint8)
    data = flat[:count].view(shape)
    _fill_border(data, (height, width), geometry, widths, pad, channels)
    x = x.detach()
    pack = pack_compiled if kernels.library() is not None and x.dtype == torch.float32 else _pack_in_torch
    live = pack(x, data, (top, left), widths)
    if live is None:
        return None
    low, high = widths.x_low, widths.x_high
    return ByteInput(data, geometry, tuple(x.shape), widths.shift, live, low == 0 and high == 1)


def _fill_border(
    data: Tensor, size: tuple[int, int], geometry: Geometry, widths: Widths, pad: Tensor | None, channels: int
) -> None:
    if pad is not None and geometry.padding != (0, 0):
        data[..., channels:] = widths.shift
        data[..., :channels] = (pad.detach() + widths.shift).to(torch.uint8)
    elif geometry.padding != (0, 0) or data.shape[3] != channels:
        data.fill_(widths.shift)


def pack_compiled(x: Tensor, data: Tensor, corner: tuple[int, int], widths: Widths) -> int | None:
    """Write ``x: [N, C, H, W]`` into ``data: [N, Hp, Wp, Cp]`` from `corner` on; how many are not 0, or None."""
    loaded = kernels.library()
    assert loaded is not None
    batch, padded_h, padded_w, padded_c = data.shape
    strides, dims = kernels.sizes(*x.stride()), kernels.sizes(*x.shape)

    live = ctypes.c_int64()
    bad = loaded.sq_pack(
        kernels.at(x), strides, dims, kernels.at(data),
        *(ctypes.c_ssize_t(v) for v in (padded_h, padded_w, padded_c, *corner)), ctypes.c_float(widths.x_low),
        ctypes.c_float(widths.x_high), ctypes.c_float(widths.shift), ctypes.byref(live),
        kernels.threads(4 * x.numel(), batch),
    )  # fmt: skip
    return None if bad else int(live.value)


def _pack_in_torch(x: Tensor, data: Tensor, corner: tuple[int, int], widths: Widths) -> int | None:
    top, left = corner
    inner = data[:, top : top + x.shape[2], left : left + x.shape[3], : x.shape[1]].permute(0, 3, 1, 2)
    if not bool(((x >= widths.x_low) & (x <= widths.x_high)).all()):
        return None
    inner.copy_(x + widths.shift)
    return int(torch.count_nonzero(x)) if bool((inner.to(x.dtype) - widths.shift == x).all()) else None

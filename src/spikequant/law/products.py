"""Linear maps of integer codes: fully connected and convolution in numpy.

``Product.apply`` is exact: int64 codes and inputs, summed in float64 where the L1 bound
``max|x| * max_o sum|w_o| < 2^53`` proves that no bit can be lost, in int64 otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import Unsupported, WidthError
from spikequant.law.formats import IntArray

FLOAT64_EXACT = 2**53


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """A linear map of codes.

    ``linear``: codes ``[out, in]`` on inputs ``[..., in]``.  ``conv``: codes
    ``[out, in / groups, *kernel]`` on inputs ``[N, in, *space]`` with one or two spatial
    axes; ``pad_code`` fills the border (the code of the value zero).
    """

    kind: Literal["linear", "conv"]
    codes: IntArray
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    pad_code: IntArray | int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "conv"):
            raise Unsupported(f"a product of the kind {self.kind!r}; expected 'linear' or 'conv'")
        if self.kind == "linear" and self.codes.ndim != 2:
            raise Unsupported(f"a linear product takes codes [out, in], got the shape {self.codes.shape}")
        if self.kind == "conv":
            axes = self.codes.ndim - 2
            given = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
            wrong = [name for name, value in given.items() if len(value) != axes]
            if axes not in (1, 2) or wrong:
                raise Unsupported(f"a convolution takes 1 or 2 spatial axes with {given}, got codes {self.codes.shape}")
            if min(*self.stride, *self.dilation, self.groups) < 1 or min(self.padding) < 0:
                raise Unsupported(
                    f"a convolution has a stride, dilation and groups of at least 1, got {given}, {self.groups}"
                )
            self._check_groups()

    def _check_groups(self) -> None:
        pads, channels = np.size(self.pad_code), self.codes.shape[1] * self.groups
        if len(self.codes) % self.groups or pads not in (1, channels):
            raise Unsupported(
                f"a convolution of {channels} channels in {self.groups} groups has {len(self.codes)} outputs, "
                f"which the groups must divide, and {pads} codes for the border, which are one or one per channel"
            )

    def l1(self) -> IntArray:
        """``sum |w|`` of every output row, ``[out]``: the bound of the sum per unit of input."""
        bound: IntArray = np.abs(self.codes.reshape(len(self.codes), -1)).sum(axis=1)
        return bound

    def positive_negative(self) -> tuple[IntArray, IntArray]:
        """Sums of the positive and of the negative codes of every output row."""
        rows = self.codes.reshape(len(self.codes), -1)
        return np.where(rows > 0, rows, 0).sum(axis=1), np.where(rows < 0, rows, 0).sum(axis=1)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one output for one input of `shape` (no batch axis); raises on a misfit."""
        if self.kind == "linear":
            if shape[-1] != self.codes.shape[1]:
                raise Unsupported(f"a linear product of {self.codes.shape[1]} inputs was given the shape {shape}")
            return (*shape[:-1], self.codes.shape[0])
        channels = self.codes.shape[1] * self.groups
        if len(shape) != self.codes.ndim - 1 or shape[0] != channels:
            raise Unsupported(f"a convolution of {channels} channels was given the shape {shape}")
        space = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                shape[1:], self.codes.shape[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )
        if min(space) < 1:
            raise Unsupported(
                f"a convolution with the kernel {self.codes.shape[2:]} leaves nothing of the shape {shape}"
            )
        return (self.codes.shape[0], *space)

    def apply(self, x: IntArray) -> IntArray:
        """The exact sums for a batch of inputs ``[N, ...]``."""
        largest = int(np.abs(x).max()) if x.size else 0
        pad = int(np.abs(np.asarray(self.pad_code)).max())
        bound = int(self.l1().max(initial=0)) * max(largest, pad)
        if bound < FLOAT64_EXACT:
            return self.apply_real(x.astype(np.float64)).astype(np.int64)
        if bound >= 2**62:
            raise WidthError(f"a sum of up to {bound} does not fit 62 bits; use narrower codes or inputs")
        sums: IntArray = self._sums(x, self.codes)
        return sums

    def apply_real(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sums in float64."""
        sums: npt.NDArray[np.float64] = self._sums(x, self.codes.astype(np.float64))
        return sums

    def _sums(self, x: Any, codes: Any) -> Any:
        if self.kind == "linear":
            return x @ codes.T
        return _convolve(self, x, codes)


def _convolve(product: Product, x: Any, codes: Any) -> Any:
    """Convolution as one matrix product per group over unfolded windows."""
    axes = codes.ndim - 2
    window = tuple((k - 1) * d + 1 for k, d in zip(codes.shape[2:], product.dilation, strict=True))
    padded = _pad(product, x)
    views = np.lib.stride_tricks.sliding_window_view(padded, window, axis=tuple(range(2, 2 + axes)))
    strides = tuple(slice(None, None, s) for s in product.stride)
    dilations = tuple(slice(None, None, d) for d in product.dilation)
    views = views[(slice(None), slice(None), *strides, *dilations)]  # [N, C, *space, *kernel]
    batch, space = views.shape[0], views.shape[2 : 2 + axes]
    order = (0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
    outputs, inputs = codes.shape[0] // product.groups, codes.shape[1]
    sums = []
    for group in range(product.groups):
        part = views[:, group * inputs : (group + 1) * inputs].transpose(order)
        rows = part.reshape(batch * int(np.prod(space)), -1)
        weights = codes[group * outputs : (group + 1) * outputs].reshape(outputs, -1)
        sums.append((rows @ weights.T).reshape(batch, *space, outputs))
    return np.moveaxis(np.concatenate(sums, axis=-1), -1, 1)


def _pad(product: Product, x: Any) -> Any:
    if not any(product.padding):
        return x
    axes = len(product.padding)
    edges = [(0, 0), (0, 0), *((p, p) for p in product.padding)]
    padded = np.pad(x, edges)
    pad_code = np.asarray(product.pad_code, dtype=x.dtype)
    if not pad_code.any():
        return padded
    border = np.pad(np.zeros(x.shape[2:], dtype=bool), edges[2:], constant_values=True)
    fill = np.broadcast_to(pad_code.reshape(-1, *([1] * axes)), padded.shape[1:])
    return np.where(border, fill, padded)

"""The shape of a linear map: what its weights meet, and what needs no work because it meets only padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """A fully connected layer (no `stride`) or a convolution over one or two axes.

    Attributes:
        weight_shape: ``[out, in / groups, *kernel]``.
    """

    weight_shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def is_conv(self) -> bool:
        """Whether it slides."""
        return bool(self.stride)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return self.weight_shape[2:]

    @property
    def channels(self) -> int:
        """Input channels."""
        return self.weight_shape[1] * self.groups

    @property
    def fan_in(self) -> int:
        """Weights in one sum."""
        return prod(self.weight_shape[1:])

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Output positions per axis."""
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(size, self.padding, self.dilation, self.kernel, self.stride, strict=True)
        )

    def in_two_axes(self) -> Geometry:
        """The same map as a convolution over two axes; an axis that it lacks has length 1."""
        if len(self.stride) == 2:
            return self
        if not self.is_conv:
            return Geometry((*self.weight_shape, 1, 1), (1, 1), (0, 0), (1, 1))
        shape = (*self.weight_shape[:2], 1, *self.kernel)
        return Geometry(shape, (1, *self.stride), (0, *self.padding), (1, *self.dilation), self.groups)

    def is_flat(self, size: tuple[int, ...]) -> bool:
        """Whether it is a matrix product: one tap on an input of one place."""
        ones = set(self.kernel) <= {1} and set(size) <= {1}
        return ones and self.groups == 1 and not any(self.padding)

    def tap_offsets(self, width: int, channels: int) -> list[int]:
        """From an output's first input to each tap's, in images ``[H, width, channels]``; over two axes."""
        (rows, columns), (dh, dw) = self.kernel, self.dilation
        return [(i * dh * width + j * dw) * channels for i in range(rows) for j in range(columns)]

    def unpadded(self) -> Geometry:
        """The same map of an input that is padded already."""
        return replace(self, padding=(0,) * len(self.padding))

    def live_taps(self, size: tuple[int, ...]) -> tuple[range, ...]:
        """Taps per axis that meet an input of this size anywhere; the others see zeros of the padding only.

        >>> Geometry((8, 8, 3, 3), (1, 1), (1, 1), (1, 1)).live_taps((1, 2))
        (range(1, 2), range(0, 3))
        """
        outputs = self.output_size(size)
        axes = zip(size, outputs, self.padding, self.dilation, self.kernel, self.stride, strict=True)
        return tuple(_live(*axis) for axis in axes)

    def trimmed(self, size: tuple[int, ...]) -> tuple[Geometry, tuple[slice, ...]] | None:
        """A smaller kernel with the same result on an input of this size, and which weights it takes; else None."""
        taps = self.live_taps(size)
        if all(len(live) == k for live, k in zip(taps, self.kernel, strict=True)):
            return None
        padding = tuple(p - live.start * d for p, live, d in zip(self.padding, taps, self.dilation, strict=True))
        outputs = self.output_size(size)
        shape = (*self.weight_shape[:2], *(len(live) for live in taps))
        smaller = replace(self, weight_shape=shape, padding=padding)
        if min(padding) < 0 or smaller.output_size(size) != outputs:
            return None
        return smaller, (slice(None), slice(None), *(slice(live.start, live.stop) for live in taps))

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """The map in the type of its operands: ``[N, C, *size]`` or ``[..., features]``."""
        with torch.autocast(x.device.type, enabled=False):  # half precision would round the sums
            if not self.is_conv:
                return F.linear(x, weight)
            function = F.conv1d if len(self.stride) == 1 else F.conv2d
            return function(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


def _live(size: int, outputs: int, padding: int, dilation: int, kernel: int, stride: int) -> range:
    """Taps ``k`` for which some output ``o`` has ``0 <= o stride - padding + k dilation < size``."""
    seen = [
        k for k in range(kernel) if any(0 <= o * stride - padding + k * dilation < size for o in range(outputs))
    ]  # fmt: skip
    return range(seen[0], seen[-1] + 1) if seen else range(kernel)

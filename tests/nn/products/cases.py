"""Random products with operands at the ends of their ranges, and their sums in float64."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikequant.nn.products import Geometry, LayerProduct, Widths

RANGES = ((0, 1), (0, 1), (0, 4), (0, 255), (-128, 127))


@dataclass(frozen=True)
class Case:
    """Operands of one product."""

    geometry: Geometry
    x: Tensor
    codes: Tensor
    gain: Tensor
    pad: Tensor | None
    widths: Widths

    def gained(self, codes: Tensor) -> Tensor:
        return codes * self.gain.to(codes.dtype).reshape(-1, *([1] * (codes.dim() - 1)))

    def sums(self, x: Tensor | None = None, codes: Tensor | None = None) -> tuple[Tensor, str]:
        """By the layer, and the path that it took."""
        layer = LayerProduct(self.geometry)
        x, codes = self.x if x is None else x, self.codes if codes is None else codes
        sums = layer.sums(
            x, codes, self.gain, widths=self.widths, packs={}, pad=self.pad, gained=self.gained(codes)
        )  # fmt: skip
        return sums, layer.taken[0]

    def plainly(self, x: Tensor, codes: Tensor) -> Tensor:
        """By torch's own operation, in the type of the operands."""
        geometry, weight = self.geometry, self.gained(codes)
        if not geometry.is_conv:
            return F.linear(x, weight)
        features = len(geometry.weight_shape) - 1
        merged = x.reshape(-1, *x.shape[-features:])
        if self.pad is not None:
            around = [p for axis in reversed(geometry.padding) for p in (axis, axis)]
            border = 1 - F.pad(torch.ones_like(merged), around)
            shown = self.pad.to(merged).reshape(1, -1, *([1] * (features - 1)))
            merged, geometry = F.pad(merged, around) + border * shown, geometry.unpadded()
        out = geometry.apply(merged, weight)
        return out.reshape(*x.shape[:-features], *out.shape[1:])


def case(seed: int) -> Case:
    """One product: fully connected or a convolution over one or two axes, odd sizes, groups, dilation, extremes."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    low, high = draw.choice(RANGES)
    geometry, shape = _linear(draw) if draw.random() < 0.25 else _convolution(draw)
    x = torch.randint(low, high + 1, shape) * (torch.rand(shape) < draw.choice((0.05, 0.3, 1.0)))
    if draw.random() < 0.2:
        x = torch.where(torch.rand(shape) < 0.5, low, high)
    codes = torch.randint(-128, 128, geometry.weight_shape)
    if draw.random() < 0.3:
        codes = torch.where(torch.rand(codes.shape) < 0.5, -128, 127)
    out = geometry.weight_shape[0]
    gain = 2.0 ** torch.randint(0, 3, (out,)).double() * torch.where(torch.rand(out) < 0.5, -1, 1)
    pad = None
    if geometry.is_conv and draw.random() < 0.3:
        pad = torch.randint(max(low, 0), high + 1, (geometry.channels,)).float()
    return Case(geometry, x.float(), codes.float(), gain, pad, Widths(low, high, -128, 127, geometry.fan_in * 128))


def _linear(draw: random.Random) -> tuple[Geometry, tuple[int, ...]]:
    inputs, outputs = draw.choice((1, 7, 35, 112)), draw.choice((1, 3, 10, 33, 70, 130))
    lead = draw.choice(((3,), (1,), (4, 3), (2, 3, 2)))
    return Geometry((outputs, inputs)), (*lead, inputs)


def _convolution(draw: random.Random) -> tuple[Geometry, tuple[int, ...]]:
    axes, groups = draw.choice((1, 2, 2)), draw.choice((1, 1, 1, 2))
    inputs, outputs = draw.choice((1, 2, 3, 5, 8, 16)), draw.choice((1, 3, 10, 33, 70, 130)) * groups
    kernel = tuple(draw.choice((1, 2, 3, 5)) for _ in range(axes))
    stride = tuple(draw.choice((1, 1, 2)) for _ in range(axes))
    padding = tuple(draw.choice((0, 1, 2)) for _ in range(axes))
    dilation = tuple(draw.choice((1, 1, 2)) for _ in range(axes))
    least = [(k - 1) * d + 1 - 2 * p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(max(draw.choice((1, 2, 7, 9)), n) for n in least)
    lead = draw.choice(((2,), (3, 2), (1,), (11, 2)))
    geometry = Geometry((outputs, inputs, *kernel), stride, padding, dilation, groups)
    return geometry, (*lead, inputs * groups, *size)

"""Gradients of convolutions that repeat a small shape over many pictures, by `conv_gradients.c`.

Which kernel runs is a rule of shapes and density, never a clock: their roundings differ, and a run must replay.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod

import torch
from torch import Tensor

from spikequant.nn.memory import POOL
from spikequant.nn.products import kernels
from spikequant.nn.products.byte_input import ByteInput
from spikequant.nn.products.geometry import Geometry

IMAGES, NARROW, NEAR_PLACES, MOST_TAPS = 8, 32, 2048, 64
"""Of `conv_gradients.c`."""
TOGETHER = 256
"""Places of a list: their gradients stay beside the processor."""
PICTURES = 64
"""Pictures of a list of one place."""
FEW_PLACES, FEWEST_PLACES = 16, 4
"""Output places up to which lists are of one input place each: with a stride, and without one."""
SMALL_PICTURE = 64
"""Input places up to which links are faster than oneDNN for the gradient of the input."""
DENSEST, DENSEST_OF_LINKS, DENSEST_THIN = 0.4, 0.8, 0.15
"""Share of live inputs up to which events are gathered: by taps, by links, and below `NARROW` input channels."""


@dataclass(frozen=True, eq=False)
class Links:
    """Which outputs read which inputs: links ``first[p] .. first[p + 1]`` of input place p have an output and a tap."""

    first: Tensor
    places: Tensor
    taps: Tensor


@cache
def links_of(geometry: Geometry, size: tuple[int, int]) -> Links:
    """The links of every input place, none of which meets the border.

    >>> links_of(Geometry((8, 8, 3, 3), (1, 1), (1, 1), (1, 1)), (1, 2)).taps.tolist()
    [3, 4, 4, 5]
    """
    outputs, kernel = geometry.output_size(size), geometry.kernel
    first, found = [0], []
    for place in product(*map(range, size)):
        for k, tap in enumerate(product(*map(range, kernel))):
            axes = zip(place, geometry.padding, tap, geometry.dilation, geometry.stride, outputs, strict=True)
            at = [divmod(n + p - t * d, s) if 0 <= n + p - t * d < o * s else (0, 1) for n, p, t, d, s, o in axes]
            if not any(rest for _, rest in at):
                found.append((at[0][0] * outputs[1] + at[1][0], k))
        first.append(len(found))
    numbers = [first, [q for q, _ in found], [k for _, k in found]]
    return Links(*(torch.tensor(values, dtype=torch.int32) for values in numbers))


def input_gradient_of_links(
    g: Tensor, shape: tuple[int, ...], weight: Tensor, geometry: Geometry, gain: Tensor | None = None
) -> Tensor:
    """``dL/dx`` for ``[N, C, H, W]`` of ``gain * weight``, channels last."""
    loaded = kernels.library()
    assert loaded is not None
    batch, channels, height, width = shape
    g, weight = g.contiguous(memory_format=torch.channels_last), weight.contiguous()
    out, outputs, taps = weight.shape[0], g.shape[2] * g.shape[3], weight[0, 0].numel()
    links, threads = links_of(geometry, (height, width)), kernels.threads(g.numel() * taps, -(-batch // IMAGES))
    rows = torch.empty(threads.value * taps * out * NARROW)
    panel = POOL.empty((-(-batch // IMAGES) * IMAGES * outputs * out,), torch.float32)
    toward_x = POOL.empty(shape, torch.float32, last=True)
    loaded.sq_input_gradient(
        kernels.at(g), *map(ctypes.c_ssize_t, (batch, outputs, out)), kernels.at(weight),
        ctypes.c_void_p() if gain is None else kernels.at(gain), *map(ctypes.c_ssize_t, (channels, taps)),
        kernels.at(links.first), kernels.at(links.places), kernels.at(links.taps), ctypes.c_ssize_t(height * width),
        kernels.at(rows), kernels.at(panel), kernels.at(toward_x), threads,
    )  # fmt: skip
    return toward_x


def suits_links(geometry: Geometry, shape: tuple[int, ...]) -> bool:
    """Whether `input_gradient_of_links` is the faster one: small pictures, many of them, many channels."""
    many = shape[0] >= 2 * IMAGES and min(geometry.weight_shape[:2]) >= NARROW
    return kernels.has_vnni() and geometry.groups == 1 and many and shape[2] * shape[3] <= SMALL_PICTURE


def gathered_by(geometry: Geometry, shape: tuple[int, ...]) -> str:
    """Which function gathers the gradient of the weights where inputs are sparse: `links`, `taps` or none ('')."""
    out, inputs = geometry.weight_shape[:2]
    outputs = prod(geometry.output_size(shape[2:]))
    if not kernels.has_vnni() or geometry.groups != 1 or out < NARROW or prod(geometry.kernel) > MOST_TAPS:
        return ""
    few = FEWEST_PLACES if set(geometry.stride) == {1} else FEW_PLACES
    if inputs >= NARROW and shape[0] >= PICTURES and outputs <= few:
        return "links"
    padded = prod(n + 2 * p for n, p in zip(shape[2:], geometry.padding, strict=True))
    plain = set(geometry.stride) == {1} and geometry.fan_in > inputs and 2 * inputs >= NARROW
    return "taps" if plain and padded <= NEAR_PLACES else ""


def gathered(g: Tensor, x: ByteInput) -> Tensor | None:
    """The gradient of the weights from events; None where another way is faster."""
    how = gathered_by(x.geometry, x.shape)
    densest = DENSEST if x.geometry.weight_shape[1] >= NARROW else DENSEST_THIN
    if not how or x.density > (DENSEST_OF_LINKS if how == "links" else densest):
        return None
    return weight_gradient_of_links(g, x) if how == "links" else weight_gradient_of_taps(g, x)


@dataclass(frozen=True, eq=False)
class Lists:
    """Places of the bytes that are not 0, by list and channel (`sq_list_places`)."""

    where: Tensor
    value: Tensor
    first: Tensor
    most: int


def _lists(x: ByteInput, start: Tensor, many: Tensor, stride: int, most: int) -> Lists:
    loaded = kernels.library()
    assert loaded is not None
    lists, padded = start.numel(), x.data.shape[3]
    where = POOL.empty((lists * most * padded,), torch.int16)
    value = POOL.empty((lists * most * padded,), torch.uint8)
    first = torch.empty(lists * (padded + 1), dtype=torch.int32)
    loaded.sq_list_places(
        kernels.at(x.data), kernels.at(start), kernels.at(many), *map(ctypes.c_ssize_t, (lists, stride, padded, most)),
        kernels.at(where), kernels.at(value), kernels.at(first), kernels.threads(x.data.numel(), lists),
    )  # fmt: skip
    return Lists(where, value, first, most)


def weight_gradient_of_taps(g: Tensor, x: ByteInput) -> Tensor:
    """``dL/dw`` of stride 1: an event adds the gradients of all outputs that it reached."""
    loaded = kernels.library()
    assert loaded is not None
    g = g.contiguous(memory_format=torch.channels_last)
    batch, high, wide, padded = x.data.shape
    out, inputs, *kernel = x.geometry.weight_shape
    pictures = max(1, TOGETHER // (high * wide))
    most = pictures * high * wide
    start = torch.arange(0, batch, pictures) * (high * wide * padded)
    many = (batch - torch.arange(0, batch, pictures)).clamp(max=pictures) * (high * wide)
    lists = _lists(x, start, many.to(torch.int32), padded, most)
    offsets = [offset // padded for offset in x.tap_offsets()]
    threads = kernels.threads(x.live * out * len(offsets), -(-out // NARROW))
    near = torch.empty(threads.value * (offsets[-1] + most) * NARROW)
    sums = POOL.empty((threads.value * padded * len(offsets) * NARROW,), torch.float32)
    grad = POOL.empty((out, inputs, *kernel), torch.float32)
    loaded.sq_tap_gradient(
        kernels.sizes(*x.sizes()), kernels.sizes(*offsets), *map(ctypes.c_ssize_t, (len(offsets), batch, inputs, most)),
        kernels.at(lists.where), kernels.at(lists.value), kernels.at(lists.first), ctypes.c_int(x.binary),
        kernels.at(g), kernels.at(near), kernels.at(sums), kernels.at(grad), threads,
    )  # fmt: skip
    return grad


def weight_gradient_of_links(g: Tensor, x: ByteInput) -> Tensor:
    """``dL/dw`` of any stride: an event adds the gradients of the links of its place."""
    loaded = kernels.library()
    assert loaded is not None
    g = g.contiguous(memory_format=torch.channels_last)
    batch, high, wide, padded = x.data.shape
    out, inputs, *kernel = x.geometry.weight_shape
    size, taps, outputs = (x.shape[2], x.shape[3]), kernel[0] * kernel[1], g.shape[2] * g.shape[3]
    links, places, picture = links_of(x.geometry, size), size[0] * size[1], high * wide * padded
    most, turns = PICTURES, torch.arange(0, batch, PICTURES)
    top, left = x.geometry.padding
    corner = ((torch.arange(size[0]) + top)[:, None] * wide + torch.arange(size[1]) + left).reshape(-1) * padded
    start = (turns[:, None] * picture + corner).reshape(-1)
    many = (batch - turns).clamp(max=most).repeat_interleave(places).to(torch.int32)
    lists = _lists(x, start, many, picture, most)
    threads = kernels.threads(x.live * out * taps, -(-out // NARROW))
    near = torch.empty(threads.value * outputs * most * NARROW)
    sums = POOL.empty((threads.value * padded * taps * NARROW,), torch.float32)
    grad = POOL.empty((out, inputs, *kernel), torch.float32)
    loaded.sq_link_gradient(
        *map(ctypes.c_ssize_t, (batch, outputs, out, inputs, padded, taps, places)), kernels.at(links.first),
        kernels.at(links.places), kernels.at(links.taps), ctypes.c_ssize_t(most), kernels.at(lists.where),
        kernels.at(lists.value), kernels.at(lists.first), ctypes.c_int(x.binary), kernels.at(g), kernels.at(near),
        kernels.at(sums), kernels.at(grad), threads,
    )  # fmt: skip
    return grad

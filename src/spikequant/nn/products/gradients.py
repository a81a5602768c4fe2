"""Gradients of a product: float32 by oneDNN, or, for the weights of sparse spikes, by their events.

Which of them runs is a rule of shapes and density, never a clock: their roundings differ, and a run must replay.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from spikequant.nn.memory import POOL
from spikequant.nn.products import kernels
from spikequant.nn.products.byte_input import ByteInput
from spikequant.nn.products.geometry import Geometry

WIDE = 64
"""Output channels that one pass of the event kernel holds in registers."""
DENSEST, DENSEST_WIDE = 0.12, 0.3
"""Share of live inputs up to which events are faster than a dense product, with 64 and with 128 input channels
(benchmarks/product_paths.md)."""
CACHE = 1 << 18
"""Bytes of gradients that a pass should keep near the processor."""
LAST_UP_TO = 256
"""Channels up to which channels last is the faster order for gradients."""


def input_gradient(g: Tensor, x_shape: torch.Size, weight: Tensor, geometry: Geometry) -> Tensor:
    """``dL/dx`` for ``[N, C, H, W]``; differentiable."""
    if geometry.is_flat(tuple(x_shape[2:])):
        return (g[:, :, 0, 0] @ weight[:, :, 0, 0])[:, :, None, None]
    stand_in = weight.new_zeros(()).expand(x_shape)
    return _backward(g, stand_in, weight, geometry, (True, False))[0]


def weight_gradient(g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """``dL/dw`` for ``[out, in / groups, kh, kw]``; differentiable."""
    if geometry.is_flat(tuple(x.shape[2:])):
        return (g[:, :, 0, 0].t() @ x[:, :, 0, 0])[:, :, None, None]
    return _backward(g, x, weight, geometry, (False, True))[1]


def _backward(
    g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    if not torch.is_grad_enabled() and max(weight.shape[:2]) <= LAST_UP_TO:
        g, weight = (value.contiguous(memory_format=torch.channels_last) for value in (g, weight))
        x = x.contiguous(memory_format=torch.channels_last) if wanted[1] else x
    with torch.autocast(g.device.type, enabled=False):
        toward_x, toward_weight, _ = torch.ops.aten.convolution_backward(
            g, x, weight, None, geometry.stride, geometry.padding, geometry.dilation, False, [0, 0], geometry.groups,
            [*wanted, False],
        )  # fmt: skip
    return toward_x, toward_weight


def may_be_events(geometry: Geometry) -> bool:
    """Whether events can be faster than a dense product for these shapes: many channels, several taps, stride 1."""
    out, inputs = geometry.weight_shape[:2]
    plain = geometry.groups == 1 and set(geometry.stride) == {1} and geometry.fan_in > inputs
    return plain and out >= WIDE and inputs >= WIDE and kernels.has_vnni()


def suits_events(x: ByteInput, g: Tensor) -> bool:
    """Whether the gradient of the weights is gathered from events."""
    densest = DENSEST_WIDE if x.geometry.weight_shape[1] >= 2 * WIDE else DENSEST
    return may_be_events(x.geometry) and x.shift == 0 and g.dtype == torch.float32 and x.density <= densest


def weight_gradient_of_events(g: Tensor, x: ByteInput) -> Tensor:
    """``dL/dw``: for every input that is not 0, the gradients of the outputs that it reached, added up."""
    loaded = kernels.library()
    assert loaded is not None
    g = g.contiguous(memory_format=torch.channels_last)
    images, padded_h, padded_w, padded_c = x.data.shape
    out, taps = x.geometry.weight_shape[0], x.tap_offsets()
    blocks, places = -(-out // WIDE), padded_h * padded_w
    group = max(1, min(images, CACHE // (places * WIDE * 4)))
    slab = max(group, min(images, (1 << 22) // max(1, places * padded_c)))
    lead = max(taps) // padded_c
    by_block = blocks >= torch.get_num_threads()
    shape = (blocks, len(taps), padded_c, WIDE)

    def part(start: int, stop: int) -> Tensor:
        ends = (0, images, start, stop) if by_block else (start, stop, 0, blocks)
        grad = whole if by_block else POOL.empty(shape, torch.float32).zero_()
        scratch = torch.empty((lead + group * places) * WIDE)
        events = min(slab, images) * places * padded_c
        where, value = torch.empty(events, dtype=torch.int32), torch.empty(events, dtype=torch.uint8)
        first, cursor = torch.empty(padded_c + 2, dtype=torch.int64), torch.empty(padded_c, dtype=torch.int64)
        loaded.sq_weight_gradient(
            kernels.at(x.data), kernels.sizes(*x.sizes()), kernels.sizes(*taps), ctypes.c_ssize_t(len(taps)),
            kernels.at(g), ctypes.c_int(x.binary), *(ctypes.c_ssize_t(v) for v in (*ends, slab, group)),
            kernels.at(scratch), ctypes.c_ssize_t(lead), kernels.at(where), kernels.at(value), kernels.at(first),
            kernels.at(cursor), kernels.at(grad),
        )  # fmt: skip
        return grad

    whole = POOL.empty(shape, torch.float32).zero_() if by_block else g
    parts = kernels.shared_among_threads(part, blocks if by_block else images, x.data.numel() * 4)
    total = whole if by_block else parts[0]
    for other in [] if by_block else parts[1:]:
        total += other
    kernel = x.geometry.kernel
    ordered = total.permute(0, 3, 2, 1).reshape(blocks * WIDE, padded_c, *kernel)
    return ordered[:out, : x.geometry.weight_shape[1]].contiguous()

"""Weight gradients of sparse spikes: for every input that is not 0, the gradients of the outputs that it reached.

Which kernel runs, or the dense product, is a rule of shapes and density, never a clock: their roundings differ, and a
run must replay.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from spikequant.nn.memory import POOL
from spikequant.nn.products import conv_gradients, kernels
from spikequant.nn.products.byte_input import ByteInput
from spikequant.nn.products.encode import Coding, weight_operands
from spikequant.nn.products.geometry import Geometry

WIDE = 64
"""Output channels that one pass of the event kernel holds in registers."""
DENSEST, DENSEST_WIDE = 0.12, 0.3
"""Share of live inputs up to which events are faster than a dense product, with 64 and with 128 input channels
(benchmarks/product_paths.md)."""
CACHE = 1 << 18
"""Bytes of gradients that a pass should keep near the processor."""
ACROSS, NEAR_ROWS = 64, 256
"""Outputs and rows of one pass over a matrix (`gradients.c`)."""
DENSEST_MATRIX = 0.15
"""The same for a matrix."""


def event_gradient(g: Tensor, x: ByteInput) -> Tensor | None:
    """``dL/dw`` by events; None where a dense product is faster."""
    if is_sparse_matrix(g, x):
        return matrix_gradient_of_events(g, x)
    if x.shift != 0 or g.dtype != torch.float32 or not kernels.has_vnni() or _is_matrix(x.geometry, x.shape):
        return None
    found = conv_gradients.gathered(g, x)
    return weight_gradient_of_events(g, x) if found is None and suits_events(x, g) else found


def is_sparse_matrix(g: Tensor, x: ByteInput) -> bool:
    """Whether this is the gradient of a matrix that is gathered from events."""
    plain = x.shift == 0 and g.dtype == torch.float32 and kernels.has_vnni()
    return plain and _is_matrix(x.geometry, x.shape) and x.density <= DENSEST_MATRIX


def _is_matrix(geometry: Geometry, shape: tuple[int, ...]) -> bool:
    out, inputs = geometry.weight_shape[:2]
    return geometry.is_flat(tuple(shape[2:])) and out >= WIDE and inputs >= WIDE


def matrix_gradient_of_events(
    g: Tensor, x: ByteInput, coding: Coding | None = None, gain: Tensor | None = None
) -> Tensor:
    """``dL/dw`` of a fully connected layer; with `coding` that of the weights that its gained codes came from."""
    loaded = kernels.library()
    assert loaded is not None
    g = g.flatten(1).contiguous()
    rows, _, _, padded = x.data.shape
    out, inputs = x.geometry.weight_shape[:2]
    where, value = torch.empty(x.live, dtype=torch.int32), torch.empty(x.live, dtype=torch.uint8)
    first = torch.empty(padded + 2, dtype=torch.int64)
    loaded.sq_list(
        kernels.at(x.data), ctypes.c_ssize_t(rows), ctypes.c_ssize_t(padded), kernels.at(where), kernels.at(value),
        kernels.at(first),
    )  # fmt: skip
    grad = POOL.empty((out, inputs), torch.float32)
    threads = kernels.threads(x.live * out, -(-out // ACROSS))
    near = torch.empty(threads.value * NEAR_ROWS * ACROSS)
    sums = torch.empty(threads.value * inputs * ACROSS)
    cursors = torch.empty(threads.value * inputs, dtype=torch.int64)
    loaded.sq_matrix_gradient(
        kernels.at(g), ctypes.c_ssize_t(rows), ctypes.c_ssize_t(out), kernels.at(where), kernels.at(value),
        kernels.at(first), ctypes.c_ssize_t(inputs), ctypes.c_int(x.binary), kernels.at(near), kernels.at(sums),
        kernels.at(cursors), kernels.at(grad), *weight_operands(coding, gain), threads,
    )  # fmt: skip
    return grad[:, :, None, None]


def may_be_events(geometry: Geometry, shape: tuple[int, ...]) -> bool:
    """Whether events can be faster than a dense product for these shapes of weights and of the input."""
    known = _is_matrix(geometry, shape) or _is_wide(geometry) or bool(conv_gradients.gathered_by(geometry, shape))
    return kernels.has_vnni() and known


def _is_wide(geometry: Geometry) -> bool:
    """Many channels, several taps, stride 1."""
    out, inputs = geometry.weight_shape[:2]
    plain = geometry.groups == 1 and set(geometry.stride) == {1} and geometry.fan_in > inputs
    return plain and out >= WIDE and inputs >= WIDE


def suits_events(x: ByteInput, g: Tensor) -> bool:
    """Whether the gradient of the weights is gathered from events."""
    densest = DENSEST_WIDE if x.geometry.weight_shape[1] >= 2 * WIDE else DENSEST
    return _is_wide(x.geometry) and x.shift == 0 and g.dtype == torch.float32 and x.density <= densest


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

"""Integer products on bytes: oneDNN through torch, compiled VNNI tiles, compiled events."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from spikequant.nn.memory import POOL
from spikequant.nn.products import kernels
from spikequant.nn.products.byte_input import ByteInput
from spikequant.nn.products.weights import LINE, LISTED, Weights


def onednn(x: ByteInput, weights: Weights) -> Tensor | None:
    """``[N, out, OH, OW]`` by oneDNN: a matrix product for a fully connected layer, else a convolution."""
    codes = weights.bytes()
    if codes is None:
        return None
    return _matrix_product(x, codes, weights) if weights.is_linear else _convolution(x, codes, weights)


def _matrix_product(x: ByteInput, codes: Tensor, weights: Weights) -> Tensor:
    rows, flat = x.data.reshape(x.data.shape[0], -1), codes.flatten(1)
    minus = x.shift
    if x.binary:
        signed = rows.view(torch.int8)
    else:
        signed, minus = rows.bitwise_xor(128).view(torch.int8), minus - 128
    sums = torch._int_mm(signed, flat.t())
    if minus:
        sums -= minus * weights.sums_of_codes()
    out = POOL.empty(tuple(sums.shape), torch.float32).copy_(sums)
    if weights.gain is not None:
        out.mul_(weights.gains())
    return out[:, :, None, None]


def _convolution(x: ByteInput, codes: Tensor, weights: Weights) -> Tensor:
    shape, packs = x.geometry.weight_shape, weights.packs
    stride, dilation, groups = list(x.geometry.stride), list(x.geometry.dilation), x.geometry.groups
    images = x.data.permute(0, 3, 1, 2)
    if groups > 1:
        images = images[:, : x.shape[1]].contiguous(memory_format=torch.channels_last)
    name = f"onednn {x.shift}"
    if name not in packs:
        packs[name] = torch.ops.onednn.qconv_prepack(
            codes, torch.ones(shape[0]), 1.0, x.shift, stride, [0, 0], dilation, groups
        )
    none = torch.zeros(shape[0], dtype=torch.int32)
    sums: Tensor = torch.ops.onednn.qconv2d_pointwise(
        images, 1.0, x.shift, packs[name], weights.gains(), none, None, stride, [0, 0], dilation, groups, 1.0, 0,
        torch.float32, "none", [], "",
    )  # fmt: skip
    return sums


def tiles(x: ByteInput, weights: Weights) -> Tensor | None:
    """``[N, out, OH, OW]``, channels last, by byte products in registers."""
    packed, loaded = weights.tiles(), kernels.library()
    if packed is None or loaded is None:
        return None
    codes, sums = packed
    out = POOL.empty(x.output_shape, torch.float32, last=True)
    minus, gains = sums * x.shift, weights.gains()
    size, taps = kernels.sizes(*x.sizes()), x.tap_offsets()
    offsets = kernels.sizes(*taps)

    def part(start: int, stop: int) -> None:
        loaded.sq_conv(
            kernels.at(x.data), size, offsets, ctypes.c_ssize_t(len(taps)), kernels.at(codes), kernels.at(minus),
            kernels.at(gains), kernels.at(out), ctypes.c_ssize_t(start), ctypes.c_ssize_t(stop),
        )  # fmt: skip

    positions = out.shape[0] * out.shape[2] * out.shape[3]
    kernels.shared_among_threads(part, positions, positions * codes.numel() // 16)
    return out


def events(x: ByteInput, weights: Weights) -> Tensor | None:
    """``[N, out, OH, OW]``, channels last: the rows of codes of the inputs that are not 0, added up."""
    loaded = kernels.library()
    if loaded is None:
        return None
    if by_byte_rows(weights, x.data.shape[3]) and x.binary and x.shift == 0:
        return _byte_rows(x, weights)
    if weights.bytes() is None:
        return None
    rows, gains = weights.rows(), weights.gains()
    out = POOL.empty(x.output_shape, torch.float32, last=True)
    size, taps = kernels.sizes(*x.sizes()), x.tap_offsets()
    offsets = kernels.sizes(*taps)

    def part(start: int, stop: int) -> None:
        sums = torch.empty(rows.shape[2], dtype=torch.int32)
        loaded.sq_events(
            kernels.at(x.data), size, offsets, ctypes.c_ssize_t(len(taps)), kernels.at(rows),
            ctypes.c_ssize_t(rows.shape[2]), kernels.at(gains), kernels.at(out), kernels.at(sums),
            ctypes.c_ssize_t(start), ctypes.c_ssize_t(stop),
        )  # fmt: skip

    positions = out.shape[0] * out.shape[2] * out.shape[3]
    kernels.shared_among_threads(part, positions, positions * rows.numel() // 8)
    return out


def by_byte_rows(weights: Weights, padded: int) -> bool:
    """Whether spikes of a matrix add its codes as bytes, `LINE` outputs at a time in registers."""
    return weights.is_linear and weights.geometry.weight_shape[0] >= LINE and padded <= LISTED and kernels.has_vnni()


def _byte_rows(x: ByteInput, weights: Weights) -> Tensor | None:
    rows, gains, loaded = weights.byte_rows(), weights.gains(), kernels.library()
    if rows is None or loaded is None:
        return None
    out = POOL.empty(x.output_shape, torch.float32, last=True)
    loaded.sq_rows(
        kernels.at(x.data), *(ctypes.c_ssize_t(size) for size in (x.data.shape[0], x.data.shape[3])), kernels.at(rows),
        kernels.at(gains), ctypes.c_ssize_t(out.shape[1]), kernels.at(out),
        kernels.threads(x.live * out.shape[1], -(-x.data.shape[0] // 64)),
    )  # fmt: skip
    return out

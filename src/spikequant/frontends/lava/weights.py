"""Weights, biases and delays of a layer as products of the law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikequant.frontends.lava.file import LavaLayer
from spikequant.law.errors import DataError, Unsupported
from spikequant.law.formats import IntArray, IntFormat
from spikequant.law.products import Product

SHIFT = 6
"""Lava's ``act_shift``, ``vth_shift`` and lava-dl's ``bias_exp``."""
BIAS_MANTISSA = IntFormat(bits=13)
WEIGHTS = (-256, 255)
LONGEST_DELAY = 62


def input_features(layer: LavaLayer, where: str) -> tuple[int, ...]:
    """Features that the first layer takes, from its weights."""
    if layer.kind == "dense" and layer.weight is not None:
        size = int(np.prod(layer.shape))
        if layer.weight.size % size == 0:
            return (layer.weight.size // size,)
    raise Unsupported(
        f"{where}: the file does not say the size of its input; give input_shape=(channels, height, width)"
    )


def product_of(layer: LavaLayer, shape: tuple[int, ...], where: str) -> tuple[Product, tuple[int, ...]]:
    """The linear map of a layer and its output shape, which must be the one that the file states."""
    weight = layer.weight
    if weight is None:
        raise DataError(f"{where}: has no weight")
    if int(weight.min()) < WEIGHTS[0] or int(weight.max()) > WEIGHTS[1]:
        raise Unsupported(f"{where}: weights from {weight.min()} to {weight.max()}; Loihi's go from -256 to 255")
    if layer.kind == "dense":
        size = int(np.prod(layer.shape))
        if weight.size != size * shape[0]:
            raise DataError(f"{where}: {weight.size} weights for {shape[0]} inputs and {size} neurons")
        return Product(kind="linear", codes=weight.reshape(size, shape[0])), (size,)
    if len(shape) != 3:
        raise DataError(f"{where}: a {layer.kind} layer on an input of {shape}; expected channels, height, width")
    codes, groups = _kernel(layer, shape[0], where), shape[0] if layer.kind == "pool" else layer.groups
    if min(layer.stride) < 1 or min(layer.dilation) < 1 or not 1 <= groups <= shape[0]:
        raise DataError(
            f"{where}: stride {layer.stride}, dilation {layer.dilation}, {groups} groups; expected 1 or more"
        )
    if codes.shape[1] * groups != shape[0] or codes.shape[0] % groups:
        raise DataError(f"{where}: a kernel {codes.shape} in {groups} groups on {shape[0]} channels")
    product = Product(
        kind="conv",
        codes=codes,
        groups=groups,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
    )
    if layer.shape != product.output_shape(shape):
        raise DataError(f"{where}: gives {product.output_shape(shape)}, but the file says {layer.shape}")
    return product, layer.shape


def _kernel(layer: LavaLayer, channels: int, where: str) -> IntArray:
    """Codes ``[out, in, y, x]``; the file has a last axis for time."""
    weight = layer.weight
    assert weight is not None
    if layer.kind == "pool":
        if len(layer.kernel) != 2 or min(layer.kernel) < 1 or bool((weight != weight.reshape(-1)[0]).any()):
            raise Unsupported(f"{where}: a pooling whose weights differ, or without kernelSize; expected one weight")
        return np.full((channels, 1, *layer.kernel), int(weight.reshape(-1)[0]), dtype=np.int64)
    if weight.ndim not in (4, 5) or int(np.prod(weight.shape[4:])) != 1:
        raise DataError(f"{where}: a kernel of the shape {weight.shape}; expected [out, in, height, width, 1]")
    return weight.reshape(weight.shape[:4])


def membrane_bias(bias: IntArray, shape: tuple[int, ...], where: str) -> IntArray:
    """One bias per neuron or channel, in the membrane's unit."""
    flat = bias.reshape(-1)
    if not BIAS_MANTISSA.holds(flat):
        raise DataError(f"{where}: biases from {flat.min()} to {flat.max()}; Loihi's mantissa has 13 bits")
    if flat.size not in (1, shape[0]):
        raise DataError(f"{where}: {flat.size} biases for {shape[0]} channels")
    scaled: IntArray = flat.reshape(-1, *([1] * (len(shape) - 1))) * 2**SHIFT
    return scaled


def axonal_delays(layer: LavaLayer, where: str) -> IntArray | None:
    """Axonal delays of a layer's output (lava-dl `slayer/axon/delay.py`); netx leaves them out."""
    if layer.delay is None or not layer.delay.any():
        return None
    delays, size = layer.delay.reshape(-1), int(np.prod(layer.shape))
    if int(delays.min()) < 0 or int(delays.max()) > LONGEST_DELAY:
        raise DataError(f"{where}: delays from {delays.min()} to {delays.max()}; Loihi takes 0 to {LONGEST_DELAY}")
    if delays.size == 1:
        return np.repeat(delays, size)
    if delays.size not in (size, layer.shape[0]):
        raise DataError(f"{where}: {delays.size} delays for {size} neurons")
    return delays


def split_by_delay(product: Product, delays: IntArray, where: str) -> list[tuple[int, Product]]:
    """One product for each delay, with the weights of the inputs that have it."""
    if len(np.unique(delays)) == 1:
        return [(int(delays[0]), product)]
    if product.codes.shape[1] != delays.size:
        raise Unsupported(f"{where}: {delays.size} different delays before {product.codes.shape[1]} input channels")
    axis = (1, -1, *([1] * (product.codes.ndim - 2)))
    return [
        (int(d), replace(product, codes=product.codes * (delays == d).astype(np.int64).reshape(axis)))
        for d in np.unique(delays)
    ]

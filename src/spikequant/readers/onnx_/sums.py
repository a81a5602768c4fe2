"""Linear maps, products of activations and pooling as integer operators.

Where activations span at most 128 integers and codes fit in 8 bits, a map is `MatMulInteger` / `ConvInteger` on
uint8 in 0 to 127 and 8-bit codes: kernels that add pairs of products in 16 bits (x86 without VNNI) stay exact on those.
Codes of a convolution are uint8 with a zero point: older runtimes have no other kernel, and here it is 5 times faster.
Codes of up to 16 bits are two or three such maps, the higher ones times powers of 256.  Everything else is a `MatMul`
in int32 or int64, whichever the L1 bound proves.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from spikequant.law.network import MatmulNode, PoolNode, SynapseNode
from spikequant.law.products import Product
from spikequant.readers.onnx_.graph import INT8, INT32, UINT8, Graph, Value, kind_for

SEVEN_BITS, MOST_DIGITS = 127, 3
Range = tuple[int, int]


def write_synapse(graph: Graph, node: SynapseNode, x: Value, shape: tuple[int, ...], span: Range) -> Value:
    """Codes times an input of `shape` whose values lie in `span`."""
    product = node.product
    pad = np.asarray(product.pad_code, dtype=np.int64)
    padded = product.kind == "conv" and any(product.padding)
    if padded:
        span = min(span[0], int(pad.min())), max(span[1], int(pad.max()))
        x = pad_border(graph, x, pad, product.padding, span)
        shape = (shape[0], *(n + 2 * p for n, p in zip(shape[1:], product.padding, strict=True)))
    digits = byte_digits(product.codes)
    if span[1] - span[0] <= SEVEN_BITS and len(digits) <= MOST_DIGITS and _fits(product.codes, digits):
        return _by_bytes(graph, product, x, span, digits)
    largest = int(product.l1().max(initial=0)) * max(abs(span[0]), abs(span[1]), 1)
    kind = kind_for(-largest, largest, node.name)
    x = graph.cast(x, kind_for(min(span[0], -largest), max(span[1], largest)))
    if product.kind == "linear":
        return graph.op("MatMul", x, graph.const(product.codes.T, kind, "weight"))
    return _conv_by_windows(graph, product, x, shape, node.shape, kind)


def byte_digits(codes: Any) -> list[tuple[int, Any]]:
    """``codes = sum of factor * digit`` with digits of -128 to 127.

    >>> [(f, d.tolist()) for f, d in byte_digits(np.array([[5, 200, -129]]))]
    [(1, [[5, -56, 127]]), (256, [[0, 1, -1]])]
    """
    rest, factor = np.asarray(codes, dtype=np.int64), 1
    digits: list[tuple[int, Any]] = []
    while not digits or np.any(rest):
        low = (rest + 128) % 256 - 128
        digits.append((factor, low))
        rest, factor = (rest - low) // 256, factor * 256
    return digits


def _fits(codes: Any, digits: list[tuple[int, Any]]) -> bool:
    """Whether the sum of every digit fits the int32 that the integer operators give."""
    rows = [int(np.abs(d.reshape(len(codes), -1)).sum(axis=1).max(initial=0)) for _, d in digits]
    return max(rows) * SEVEN_BITS < 2**31


def _by_bytes(graph: Graph, product: Product, x: Value, span: Range, digits: list[tuple[int, Any]]) -> Value:
    low = min(span[0], 0)
    if span[1] - low > SEVEN_BITS:  # far from zero: count from the lowest value
        low = span[0]
    x = graph.op("Sub", x, graph.const(low, x.kind)) if low else x
    small = graph.cast(x, UINT8)
    rows = product.codes.reshape(len(product.codes), -1).sum(axis=1)
    largest = sum(
        f * SEVEN_BITS * int(np.abs(d.reshape(len(rows), -1)).sum(axis=1).max(initial=0)) for f, d in digits
    ) + abs(low) * int(np.abs(rows).max(initial=0))
    kind = kind_for(-largest, largest)
    total: Value | None = None
    for factor, digit in digits:
        part = graph.cast(_one_map(graph, product, small, digit), kind)
        part = graph.op("Mul", part, graph.const(factor, kind)) if factor != 1 else part
        total = part if total is None else graph.op("Add", total, part)
    assert total is not None
    if not low:
        return total
    axes = product.codes.ndim - 2 if product.kind == "conv" else 0
    return graph.op("Add", total, graph.const((low * rows).reshape(-1, *[1] * axes), kind))


def _one_map(graph: Graph, product: Product, x: Value, codes: Any) -> Value:
    if product.kind == "linear":
        return graph.op("MatMulInteger", x, graph.weights(np.ascontiguousarray(codes.T))[0], kind=INT32)
    options: dict[str, Any] = {"strides": product.stride, "dilations": product.dilation, "group": product.groups}
    weight, zero = graph.weights(codes, unsigned=True)
    points = graph.const(0, UINT8), graph.const(zero, UINT8)
    return graph.op("ConvInteger", x, weight, *points, kind=INT32, **options)


def pad_border(graph: Graph, x: Value, code: Any, padding: tuple[int, ...], span: Range) -> Value:
    """`x` with a border of `code`, one number or one per channel."""
    axes = len(padding)
    x = graph.cast(x, kind_for(span[0] - span[1], span[1] - span[0] + abs(span[1])))
    pads = graph.const(np.array([0, 0, *padding, 0, 0, *padding]))
    if code.ndim == 0 or np.all(code == code.reshape(-1)[0]):
        return graph.op("Pad", x, pads, graph.const(code.reshape(-1)[0], x.kind))
    fill = graph.const(code.reshape(-1, *[1] * axes), x.kind)
    around = graph.op("Pad", graph.op("Sub", x, fill), pads, graph.const(0, x.kind))
    return graph.op("Add", around, fill)


def _conv_by_windows(
    graph: Graph, product: Product, x: Value, shape: tuple[int, ...], out: tuple[int, ...], kind: str
) -> Value:
    """A convolution of wide integers: shifted pictures one behind the other, then one `MatMul` per group."""
    groups, channels, kernel = product.groups, product.codes.shape[1], product.codes.shape[2:]
    places = math.prod(out[1:])
    parts = []
    for offset in np.ndindex(*kernel):
        starts = [o * d for o, d in zip(offset, product.dilation, strict=True)]
        part = shifted(graph, x, 2, starts, product.stride, out[1:])
        parts.append(graph.op("Reshape", part, graph.const(np.array([0, groups, channels, places]))))
    columns = graph.op("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
    codes = product.codes.reshape(groups, out[0] // groups, channels, -1).swapaxes(2, 3)
    weight = graph.const(codes.reshape(groups, out[0] // groups, -1), kind, "weight")
    sums = graph.op("MatMul", weight, columns)
    return graph.op("Reshape", sums, graph.const(np.array([0, *out])))


def shifted(graph: Graph, x: Value, first: int, starts: list[int], strides: Any, sizes: tuple[int, ...]) -> Value:
    """Every `strides`-th element from `starts` on, `sizes` many, along the axes from `first` on."""
    ends = [s + (n - 1) * step + 1 for s, n, step in zip(starts, sizes, strides, strict=True)]
    axes = list(range(first, first + len(starts)))
    return graph.op("Slice", x, *(graph.const(np.array(part)) for part in (starts, ends, axes, list(strides))))


def write_pool(graph: Graph, node: PoolNode, x: Value, shape: tuple[int, ...], span: Range) -> Value:
    """Sum or maximum over windows, one axis after the other."""
    window = math.prod(node.kernel)
    low, high = (min(span[0], 0) * window, max(span[1], 0) * window) if node.kind == "sum" else span
    x = graph.cast(x, kind_for(low, high))
    lead = len(shape) - len(node.kernel)
    for k, (size, step, pad) in enumerate(zip(node.kernel, node.stride, node.padding, strict=True)):
        axis, n = lead + k + 1, shape[lead + k]
        if pad:
            border = [0] * (2 * (len(shape) + 1))
            border[axis] = border[axis + len(shape) + 1] = pad
            outside = 0 if node.kind == "sum" else span[0]
            x = graph.op("Pad", x, graph.const(np.array(border)), graph.const(outside, x.kind))
        x = _pool_axis(graph, node.kind, x, axis, (n + 2 * pad, size, step))
    return x


def _pool_axis(graph: Graph, kind: str, x: Value, axis: int, sizes: tuple[int, int, int]) -> Value:
    n, size, step = sizes
    if size == n and kind == "sum":
        return graph.op("ReduceSum", x, graph.const(np.array([axis])), keepdims=1)
    count, joined = (n - size) // step + 1, graph.maximum if kind == "max" else partial(graph.op, "Add")
    total: Value | None = None
    for start in range(size):
        part = shifted(graph, x, axis, [start], (step,), (count,))
        total = part if total is None else joined(total, part)
    assert total is not None
    return total


def write_matmul(graph: Graph, node: MatmulNode, a: Value, b: Value, spans: tuple[Range, Range], inner: int) -> Value:
    """A product of two activations; `inner` terms are summed."""
    if node.transpose_second:
        axes = list(range(len(node.shape) + 1))
        b = graph.op("Transpose", b, perm=[*axes[:-2], axes[-1], axes[-2]])
    (low, high), (low2, high2) = spans
    largest = inner * max(abs(low), abs(high)) * max(abs(low2), abs(high2))
    if low >= 0 and high <= SEVEN_BITS and low2 >= -128 and high2 <= SEVEN_BITS and largest < 2**31:
        return graph.op("MatMulInteger", graph.cast(a, UINT8), graph.cast(b, INT8), kind=INT32)
    kind = kind_for(min(-largest, low, low2), max(largest, high, high2), node.name)
    return graph.op("MatMul", graph.cast(a, kind), graph.cast(b, kind))

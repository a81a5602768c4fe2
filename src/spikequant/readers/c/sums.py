"""C text of sums of codes times inputs: event by event, a row of codes for every input that is not zero."""

from __future__ import annotations

import numpy as np

from spikequant.law.formats import IntArray, signed_bits_for
from spikequant.law.network import SynapseNode
from spikequant.law.products import Product
from spikequant.readers.c.layout import Value
from spikequant.readers.c.rows import factor, row_function
from spikequant.readers.c.types import holds
from spikequant.readers.c.weights import Packed, Table, pack, pack_codebook
from spikequant.readers.c.writer import Writer, flat, loops, plain_text, pointer


def write_synapse(writer: Writer, node: SynapseNode) -> None:
    """The sums of one linear map."""
    product, value = node.product, writer.layout.values[node.name]
    ((place, source),) = writer.read(node)
    pad = _border(product)
    low, high = _input_range(writer, node, pad)
    binary = low >= 0 and high <= 1
    symbol = writer.symbol(node)
    packed = _packed(node, _rows(writer, node), symbol)
    writer.packings.append(packed)
    writer.tables += packed.tables
    writer.functions.append(row_function(packed, writer.prefix, symbol, value.ctype, binary=binary))
    body = [pointer(source, "in", place), f"{value.ctype.name} *const acc = {value.place};"]
    body += loops(["i"], (value.size,), ["acc[i] = 0;"])
    call = f"{symbol}_row(acc@, #{'' if binary else f', ({factor(value.ctype)})u'});"
    if product.kind == "linear":
        body += _linear(writer, product, source, call)
    else:
        body += _conv(writer, node, source, value, pad, call)
    about = f"{plain_text(node.name)}: {product.kind}, codes of {packed.decode.width} bits ({packed.decode.kind})"
    writer.function(node, body, about=about + (", sparse" if packed.sparse else ""))


def _packed(node: SynapseNode, rows: IntArray, symbol: str) -> Packed:
    """Codes as stored; in a grouped convolution a row does not tell its channels, so their levels stand plain."""
    if node.codebook is None or len(node.codebook) == 1:
        return pack(rows, node.bits, symbol, node.name)
    if node.product.groups > 1:
        return pack(rows, signed_bits_for(int(rows.min()), int(rows.max())), symbol, node.name)
    return pack_codebook(rows, node.codebook, symbol, node.name)


def _border(product: Product) -> IntArray | None:
    """The code that pads each channel, where it is not 0."""
    if product.kind == "linear" or not any(product.padding) or not np.any(product.pad_code):
        return None
    return np.broadcast_to(np.asarray(product.pad_code, dtype=np.int64), (_channels(product),))


def _channels(product: Product) -> int:
    return int(product.codes.shape[1]) * product.groups


def _input_range(writer: Writer, node: SynapseNode, pad: IntArray | None) -> tuple[int, int]:
    interval = writer.intervals(node)[0]
    low, high = int(np.min(interval.low)), int(np.max(interval.high))
    return (low, high) if pad is None else (min(low, int(pad.min())), max(high, int(pad.max())))


def _rows(writer: Writer, node: SynapseNode) -> IntArray:
    """Codes ``[inputs, outputs]``; for a convolution ``[input channels * taps, outputs of a group]``."""
    codes, groups = node.product.codes, node.product.groups
    if node.product.kind == "conv":
        parts = codes.reshape(groups, len(codes) // groups, codes.shape[1], -1)
        rows: IntArray = parts.transpose(0, 2, 3, 1).reshape(-1, len(codes) // groups)
        return rows
    memory = writer.layout.values[writer.layout.resolve(node.inputs[0]).source]
    is_flat = len(writer.layout.net.node(node.inputs[0].source).shape) == 1
    permuted: IntArray = codes.T[memory.order()] if memory.last and is_flat else codes.T
    return permuted


def _linear(writer: Writer, product: Product, source: Value, call: str) -> list[str]:
    names = [f"r{k}" for k in range(len(source.shape) - 1)]
    offset = f" + {flat(names, source.shape[:-1])} * {len(product.codes)}u" if names else ""
    add = call.replace("@", offset).replace("#", "k")
    if _can_scan(source) and not (names and source.last):
        where = _coordinates([*names, "k"], source.shape) if names else ["const size_t k = i;"]
        return _scan(writer, source, [*where, add], signs="u" in call.split("#")[1])
    body = [f"const {source.ctype.name} u = in[{source.at([*names, 'k']) if names else 'k'}];"]
    return loops([*names, "k"], source.shape, [*body, "if (u != 0) {", f"    {add}", "}"])


def _can_scan(source: Value) -> bool:
    """Whether zeros can be skipped eight bytes at a time, and are many enough for that."""
    return source.ctype.bits == 8 and source.size >= 16


def _scan(writer: Writer, source: Value, body: list[str], *, signs: bool) -> list[str]:
    """A loop over the inputs that are not zero, in the order of memory."""
    writer.scans = True
    following, n = f"{writer.prefix}_next(in, {{}}, {source.size}u)", f"{source.size}u"
    if source.ctype.signed:
        following = following.replace("(in,", "((const uint8_t *)in,")
    load = [f"const {source.ctype.name} u = in[i];"] if signs else []
    head = f"for (size_t i = {following.format('0')}; i < {n}; i = {following.format('i + 1u')}) {{"
    return [head, *(f"    {line}" for line in [*load, *body]), "}"]


def _coordinates(names: list[str], shape: tuple[int, ...]) -> list[str]:
    """Statements that take the flat index ``i`` of a C-ordered array apart."""
    lines, inner = [], 1
    for k in reversed(range(len(names))):
        whole = f"i / {inner}u" if inner > 1 else "i"
        lines.append(f"const size_t {names[k]} = {whole}{f' % {shape[k]}u' if k else ''};")
        inner *= shape[k]
    return lines[::-1]


def _conv(writer: Writer, node: SynapseNode, source: Value, value: Value, pad: IntArray | None, call: str) -> list[str]:
    """Every input adds its rows to the sums around it; where the border is not 0 it is made of inputs too."""
    product, space = node.product, source.shape[1:]
    names, taps = ["y", "z"][: len(space)], ["ky", "kz"][: len(space)]
    outputs, codes = len(product.codes) // product.groups, product.codes
    group = f" + c / {codes.shape[1]}u * {outputs}u" if product.groups > 1 else ""
    offset = f" + {flat([f'o{a}' for a in names], value.shape[1:])} * {value.shape[0]}u{group}"
    row = flat(["c", *taps], (_channels(product), *codes.shape[2:]))
    body = [call.replace("@", offset).replace("#", row)]
    for k in reversed(range(len(names))):
        shift = product.padding[k] if pad is None else 0
        reach = _tap(names[k], taps[k], shift, product.dilation[k], product.stride[k], value.shape[1 + k])
        body = loops([taps[k]], (codes.shape[2 + k],), reach + body)
    if pad is None and _can_scan(source):
        order = [*names, "c"] if source.last else ["c", *names]
        shape = (*space, source.shape[0]) if source.last else source.shape
        return _scan(writer, source, [*_coordinates(order, shape), *body], signs="u" in call.split("#")[1])
    load, limits = _load(writer, node, source, value, names, pad)
    body = [load, "if (u == 0) {", "    continue;", "}", *body]
    return loops(["c", *names], (_channels(product), *limits), body)


def _load(
    writer: Writer, node: SynapseNode, source: Value, value: Value, names: list[str], pad: IntArray | None
) -> tuple[str, tuple[int, ...]]:
    """The statement that loads an input, and the limits of its coordinates, the border included where it counts."""
    padding, space = node.product.padding, source.shape[1:]
    if pad is None:
        return f"const {source.ctype.name} u = in[{source.at(['c', *names])}];", space
    table = Table(f"{writer.symbol(node)}_border", holds(int(pad.min()), int(pad.max())), pad, node.name, "parameters")
    writer.tables.append(table)
    conditions = []
    for name, before, size in zip(names, padding, space, strict=True):
        conditions += ([f"{name} >= {before}u"] if before else []) + [f"{name} < {before + size}u"]
    inside, kind = " && ".join(conditions), factor(value.ctype)
    at = source.at(["c", *(f"({a} - {p}u)" if p else a for a, p in zip(names, padding, strict=True))])
    limits = tuple(n + 2 * p for n, p in zip(space, padding, strict=True))
    return f"const {kind} u = ({inside}) ? ({kind})in[{at}] : ({kind}){table.name}[c];", limits


def _tap(name: str, tap: str, shift: int, dilation: int, stride: int, limit: int) -> list[str]:
    """The output position that an input reaches through a tap, or the next tap."""
    reach = tap if dilation == 1 else f"{tap} * {dilation}u"
    start = name if shift == 0 else f"{name} + {shift}u"
    distance = f"({start} - {reach})"
    wrong = [f"{start} < {reach}", *([f"{distance} % {stride}u != 0"] if stride > 1 else []), f"o{name} >= {limit}u"]
    return [
        f"const size_t o{name} = {distance if stride == 1 else f'{distance} / {stride}u'};",
        f"if ({' || '.join(wrong)}) {{",
        "    continue;",
        "}",
    ]

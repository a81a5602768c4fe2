"""What an integer network must be so that every reader can run it; the messages name the node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from spikequant.law.codebook import MOST_CODEBOOK_BITS, code_fields
from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntArray
from spikequant.law.nodes import (
    DECODERS,
    JOINS,
    Edge,
    InputNode,
    JoinNode,
    MatmulNode,
    NeuronNode,
    Node,
    PoolNode,
    ReshapeNode,
    SynapseNode,
)
from spikequant.law.spec import KNOWN_PARAMS, StateFormat, needed_params

if TYPE_CHECKING:
    from spikequant.law.network import IntNet

NETWORK_VERSION = 1
MOST_VALUES = 2**31
"""Values of one node in one step."""
FREE_SPREAD = 2**16


def validate(net: IntNet) -> None:
    """Refuse a network that no reader could run; the message names the node."""
    if net.version != NETWORK_VERSION:
        raise Unsupported(f"network version {net.version}; this release runs version {NETWORK_VERSION}")
    if not 1 <= net.steps <= 2**20:
        raise Unsupported(f"a network of {net.steps} steps; expected 1 to {2**20}")
    seen: dict[str, Node] = {}
    names = {node.name for node in net.nodes}
    if len(names) != len(net.nodes):
        raise Unsupported("two nodes of the network have the same name")
    if sum(isinstance(n, InputNode) for n in net.nodes) != 1:
        raise Unsupported("a network has exactly one input node")
    for node in net.nodes:
        for edge in node.inputs:
            _check_edge(node, edge, names, seen)
        seen[node.name] = node
    for node in net.nodes:
        _check_node(node, [seen[e.source] for e in node.inputs])
    _check_decoder(net, names)


def _check_edge(node: Node, edge: Edge, names: set[str], seen: Mapping[str, Node]) -> None:
    if edge.source not in names:
        raise Unsupported(f"node {node.name}: its input {edge.source!r} is not in the network")
    if not 0 <= edge.delay <= 2**16:
        raise Unsupported(f"node {node.name}: a delay of {edge.delay} steps; expected 0 to {2**16}")
    if edge.delay == 0 and edge.source not in seen:
        raise Unsupported(
            f"node {node.name}: the edge from {edge.source!r} has no delay but points forward or in a circle; "
            "a recurrent connection needs a delay of at least 1"
        )


def _check_node(node: Node, sources: list[Node]) -> None:
    if not node.shape or any(n < 1 for n in node.shape) or math.prod(node.shape) > MOST_VALUES:
        raise Unsupported(f"node {node.name}: the shape {node.shape} is empty, or has more than {MOST_VALUES:,} values")
    if isinstance(node, SynapseNode):
        _expect(node, len(sources) == 1, "takes one input")
        fits = node.product.output_shape(sources[0].shape) == node.shape
        _expect(node, fits, f"does not give the shape {node.shape}")
        _expect(node, node.format.holds(node.product.codes), f"has codes outside {node.format}")
        _expect(node, 1 <= node.bits <= 32, f"stores codes of {node.bits} bits; expected 1 to 32")
        if node.codebook is not None:
            _check_codebook(node, node.codebook)
    elif isinstance(node, NeuronNode):
        _expect(node, len(sources) == len(node.gains) >= 1, "needs one gain per input")
        _check_neuron(node, sources)
    elif isinstance(node, PoolNode):
        _expect(node, node.kind in ("sum", "max"), f"pools by {node.kind!r}; expected 'sum' or 'max'")
        _expect(node, len(sources) == 1, "takes one input")
        _expect(node, _has_windows(node, sources[0].shape), f"has windows that do not fit {sources[0].shape}")
        _expect(node, pooled_shape(node, sources[0].shape) == node.shape, "has a wrong shape")
        inside = all(2 * p <= k for p, k in zip(node.padding, node.kernel, strict=True))
        _expect(node, inside, "pads over half a window")
    elif isinstance(node, ReshapeNode):
        _expect(node, len(sources) == 1 and math.prod(sources[0].shape) == math.prod(node.shape), "changes the size")
    elif isinstance(node, JoinNode):
        _check_join(node, sources)
    elif isinstance(node, MatmulNode):
        _expect(node, len(sources) == 2, "takes two inputs")
        a, b = sources[0].shape, sources[1].shape
        columns = b[:-2] + (b[-2:][::-1] if node.transpose_second else b[-2:])
        fits = len(a) == len(b) >= 2 and a[:-2] == b[:-2] and a[-1] == columns[-2]
        _expect(node, fits and node.shape == (*a[:-1], columns[-1]), f"multiplies {a} by {columns} into {node.shape}")


def _check_codebook(node: SynapseNode, codebook: IntArray) -> None:
    most, rows = MOST_CODEBOOK_BITS, len(node.product.codes)
    fits = node.bits <= most and codebook.ndim == 2 and codebook.shape in ((1, node.bits), (rows, node.bits))
    why = f"{np.shape(codebook)}; expected ({rows}, {node.bits}) or (1, {node.bits}), and at most {most} bits"
    _expect(node, fits, f"has a codebook of the shape {why}")
    wide = int(np.abs(codebook).max()) >= 2**31
    _expect(node, not wide and code_fields(node.product.codes, codebook) is not None, "has codes beside its codebook")


def _check_neuron(node: NeuronNode, sources: list[Node]) -> None:
    spec = node.spec
    _expect(node, spec.compare == ">=", "compares with '>'; integer networks know one comparator, '>='")
    _expect(node, all(f is not None for f in spec.state_formats().values()), "has a state without an integer format")
    _check_exact_leaks(node)
    for source in sources:
        _expect(node, source.shape == node.shape, f"of shape {node.shape} is fed by {source.name} of {source.shape}")
    for name in needed_params(spec):
        _expect(node, name in node.params, f"lacks the parameter {name}")
    for name in node.params:
        _expect(node, name in KNOWN_PARAMS, f"has the parameter {name[:40]!r}, which no neuron reads")
    for name, value in (*node.params.items(), *((f"gain {k}", g) for k, g in enumerate(node.gains))):
        shape = np.shape(value)
        _expect(node, _spreads_to(shape, node.shape), f"has {name} of shape {shape}, which does not fit {node.shape}")
        _expect(node, np.asarray(value).dtype == np.int64, f"has {name} of type {np.asarray(value).dtype}, not int64")
    if spec.v is not None and spec.v.levels:
        _check_levels(node, spec.v)
    _check_spread(node, sources)


def _check_levels(node: NeuronNode, register: StateFormat) -> None:
    """Levels ascend inside their register, cuts ascend, and 0 is a level: there a neuron rests."""
    numbers = range(1, register.levels)
    rises, cuts = ([node.params[f"v_{what}{k}"] for k in numbers] for what in ("rise", "cut"))
    most = max(
        abs(int(value)) for part in (node.params["v_level0"], *rises, *cuts) for value in (part.min(), part.max())
    )
    _expect(node, most < 2**31, "has a level or cut beyond 32 bits")
    levels = [node.params["v_level0"]]
    for rise in rises:
        levels.append(levels[-1] + rise)
    inside = int(levels[0].min()) >= register.format.min and int(levels[-1].max()) <= register.format.max
    ordered = all(not np.any(rise < 0) for rise in rises)
    ordered &= all(not np.any(later < sooner) for sooner, later in pairwise(cuts))
    _expect(node, inside and ordered, f"has levels that leave {register.format}, or levels or cuts that do not ascend")
    rests = np.logical_or.reduce(np.broadcast_arrays(*[level == 0 for level in levels]))
    _expect(node, bool(np.all(rests)), "has no level at 0, where a neuron at rest lies")


def _check_spread(node: NeuronNode, sources: list[Node]) -> None:
    """Together parameters may not need more memory than the largest of them: their ranges are proven value by value."""
    shapes = [np.shape(v) for v in (*node.params.values(), *node.gains)]
    products = [source.product for source in sources if isinstance(source, SynapseNode)]
    shapes += [(node.shape[-1],) for product in products if product.kind == "linear"]
    shapes += [(node.shape[0], *([1] * (len(node.shape) - 1))) for product in products if product.kind == "conv"]
    together, most = math.prod(np.broadcast_shapes(*shapes)), max(math.prod(shape) for shape in shapes)
    fits = together <= max(most, FREE_SPREAD)
    _expect(node, fits, f"has parameters that spread over {together:,} values together, of {most:,} at most each")


def _has_windows(node: PoolNode, shape: tuple[int, ...]) -> bool:
    axes = len(node.kernel)
    even = axes == len(node.stride) == len(node.padding) and 1 <= axes <= len(shape)
    return even and min(*node.kernel, *node.stride) >= 1 and min(node.padding) >= 0


def _spreads_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape[::-1], target[::-1], strict=False))


def _check_exact_leaks(node: NeuronNode) -> None:
    """An exact leak needs codes that count a multiple of ``2^bits`` accumulator LSBs."""
    for state, leak in (("v", node.spec.leak), ("i", node.spec.leak_i)):
        if leak is not None and leak.form == "multiply" and leak.rounding is None and f"{state}_load" in node.params:
            whole = not np.any(node.params[f"{state}_load"] % 2**leak.bits)
            fresh = node.spec.order[0] in ("leak", "decay_current") or "leak" in node.spec.order[:2]
            why = f"leaks exactly by 2^-{leak.bits}, but {state}_load is no multiple of 2^{leak.bits}"
            _expect(node, whole or not fresh, why)


def _check_join(node: JoinNode, sources: list[Node]) -> None:
    _expect(node, node.kind in JOINS, f"is a join of the kind {node.kind!r}; expected one of {', '.join(JOINS)}")
    _expect(node, len(sources) >= 2 and len(node.gains) == len(sources), "joins two or more inputs, one gain each")
    if node.kind == "iand":
        _expect(node, len(sources) == 2 and node.gains == (1, 1), "(iand) takes two spike inputs without gains")
    if node.kind == "concat":
        shapes, axis = [s.shape for s in sources], node.axis
        inside = 0 <= axis < len(node.shape) and all(len(s) == len(node.shape) for s in shapes)
        alike = inside and len({s[:axis] + s[axis + 1 :] for s in (*shapes, node.shape)}) == 1
        fits = alike and sum(s[axis] for s in shapes) == node.shape[axis]
        _expect(node, fits, f"concatenates {shapes} along axis {axis} into {node.shape}")
    else:
        _expect(node, all(s.shape == node.shape for s in sources), f"joins {[s.shape for s in sources]}")


def _check_decoder(net: IntNet, names: set[str]) -> None:
    decoder = net.decoder
    if decoder.name not in DECODERS:
        raise Unsupported(f"decoder {decoder.name!r}; expected one of {', '.join(DECODERS)}")
    if not isinstance(decoder.scale, float) or not np.isfinite(decoder.scale):
        raise Unsupported(f"the decoder's scale is {decoder.scale!r}; expected a finite number")
    if decoder.source not in names:
        raise Unsupported(f"the decoder reads {decoder.source!r}, which is not in the network")
    if decoder.gains is not None and np.shape(decoder.gains) != net.node(decoder.source).shape:
        raise Unsupported(f"the decoder's gains {np.shape(decoder.gains)} do not fit its source")


def _expect(node: Node, good: bool, message: str) -> None:
    if not good:
        raise Unsupported(f"node {node.name} ({type(node).__name__}): {message}")


def pooled_shape(node: PoolNode, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Output shape of a pooling over the last axes of `shape`."""
    axes = len(node.kernel)
    space = (
        (n + 2 * p - k) // s + 1
        for n, k, s, p in zip(shape[-axes:], node.kernel, node.stride, node.padding, strict=True)
    )
    return (*shape[:-axes], *space)

"""The integer network: nodes, edges with delays, one file (`law/artifact.py`).

An `IntNet` is a directed graph that every reader runs or prints.  Each node produces one
integer array per sample and time step.  Edges carry a delay of ``n`` steps (recurrent
connections have 1); what lies before the first step is 0.  The schema holds from its
first version what later parts need: signed counts beside binary spikes, sums, maxima,
concatenations and products of inputs, a product of two activations, per-neuron
parameters, a named decoder, embedded test vectors, a target profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntArray, IntFormat
from spikequant.law.products import Product
from spikequant.law.spec import NeuronSpec
from spikequant.law.spec import needed_params as needed_params
from spikequant.law.units import common_unit as common_unit

NETWORK_VERSION = 1

DecoderName = Literal["spike_count", "spike_train", "membrane_last", "membrane_max", "membrane_sum", "membrane_train"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)
JoinKind = Literal["add", "concat", "product", "iand", "max"]
JOINS: tuple[JoinKind, ...] = get_args(JoinKind)


@dataclass(frozen=True)
class Edge:
    """The output of `source`, `delay` steps ago."""

    source: str
    delay: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class InputNode:
    """What enters: integer codes of `shape`; ``static`` inputs are the same at every step.

    ``scale`` says how a real input becomes codes: ``clip(round_half_even(x / scale))`` in
    float32; ``None`` means that the data are integers already.
    """

    name: str
    shape: tuple[int, ...]
    format: IntFormat
    static: bool
    scale: float | None = None

    @property
    def inputs(self) -> tuple[Edge, ...]:
        """An input has no inputs."""
        return ()


@dataclass(frozen=True, kw_only=True, eq=False)
class SynapseNode:
    """Codes times inputs, summed exactly. ``format`` and ``bits`` describe the codes as stored.

    ``scale`` is what one unit of the sum is worth, per output channel: for people, no reader needs it.
    """

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    product: Product
    format: IntFormat
    bits: int
    scale: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronNode:
    """Neurons: ``x = sum_k gains[k] * inputs[k]`` in accumulator LSBs, then the law's step."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    gains: tuple[IntArray, ...]
    spec: NeuronSpec
    params: Mapping[str, IntArray]
    seed: int = 0
    scale: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolNode:
    """Sum or maximum over windows; an average is a sum whose ``1 / k^2`` lies in the next weights."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    kind: Literal["sum", "max"]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReshapeNode:
    """The same integers in another shape, in C order (flatten)."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinNode:
    """Several inputs become one: ``gains`` bring them to one unit; ``iand`` is ``(1 - a) * b``."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    kind: JoinKind
    gains: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class MatmulNode:
    """A product of two activations ``[..., n, k] @ [..., k, m]`` (spiking attention)."""

    name: str
    shape: tuple[int, ...]
    inputs: tuple[Edge, ...]
    transpose_second: bool = False


Node = InputNode | SynapseNode | NeuronNode | PoolNode | ReshapeNode | JoinNode | MatmulNode


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoder:
    """How the output node's train becomes scores: a named function on scaled integers.

    ``gains`` brings the channels to one scale (DESIGN rule 7); ``scores * scale`` is the
    model's real output.
    """

    name: DecoderName
    source: str
    gains: IntArray | None = None
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TestVectors:
    """Stimulus and what it must give: a self-test that travels with the file."""

    inputs: IntArray
    scores: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class IntNet:
    """A whole integer network.

    Attributes:
        nodes: in an order in which every edge of delay 0 points back.
        decoder: how the output is read.
        steps: number of time steps that a static input is shown.
        target: profile whose rules it follows.
        vectors: embedded test vectors, if any.
        metadata: JSON-able facts for people (plan, versions, seeds); no reader needs them.
    """

    nodes: tuple[Node, ...]
    decoder: Decoder
    steps: int
    target: str = "reference/1"
    vectors: TestVectors | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    version: int = NETWORK_VERSION

    def __post_init__(self) -> None:
        validate(self)

    def node(self, name: str) -> Node:
        """The node called `name`; raises with the names there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise Unsupported(f"no node {name!r} in this network; there are {', '.join(n.name for n in self.nodes)}")

    @property
    def input(self) -> InputNode:
        """The input node."""
        return next(n for n in self.nodes if isinstance(n, InputNode))

    @property
    def neurons(self) -> tuple[NeuronNode, ...]:
        """The neuron nodes in order; their index is the layer number of the rounding noise."""
        return tuple(n for n in self.nodes if isinstance(n, NeuronNode))

    @property
    def synapses(self) -> tuple[SynapseNode, ...]:
        """The synapse nodes in order."""
        return tuple(n for n in self.nodes if isinstance(n, SynapseNode))

    def save(self, path: Any) -> None:
        """Write the network as one `.spq` file; see `law/artifact.py`."""
        from spikequant.law.artifact import save

        save(self, path)

    @staticmethod
    def load(path: Any) -> IntNet:
        """Read a `.spq` file, checking its hash; see `law/artifact.py`."""
        from spikequant.law.artifact import load

        return load(path)


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
    if any(n < 1 for n in node.shape):
        raise Unsupported(f"node {node.name}: the shape {node.shape} is empty")
    if isinstance(node, SynapseNode):
        _expect(node, len(sources) == 1, "takes one input")
        fits = node.product.output_shape(sources[0].shape) == node.shape
        _expect(node, fits, f"does not give the shape {node.shape}")
        _expect(node, node.format.holds(node.product.codes), f"has codes outside {node.format}")
        _expect(node, 1 <= node.bits <= 32, f"stores codes of {node.bits} bits; expected 1 to 32")
    elif isinstance(node, NeuronNode):
        _expect(node, len(sources) == len(node.gains) >= 1, "needs one gain per input")
        _check_neuron(node, sources)
    elif isinstance(node, PoolNode):
        _expect(node, node.kind in ("sum", "max"), f"pools by {node.kind!r}; expected 'sum' or 'max'")
        _expect(node, len(sources) == 1 and pooled_shape(node, sources[0].shape) == node.shape, "has a wrong shape")
        inside = all(2 * p <= k for p, k in zip(node.padding, node.kernel, strict=True))
        _expect(node, inside, "pads over half a window")
    elif isinstance(node, ReshapeNode):
        _expect(node, len(sources) == 1 and np.prod(sources[0].shape) == np.prod(node.shape), "changes the size")
    elif isinstance(node, JoinNode):
        _check_join(node, sources)
    elif isinstance(node, MatmulNode):
        _expect(node, len(sources) == 2, "takes two inputs")
        a, b = sources[0].shape, sources[1].shape
        columns = b[:-2] + (b[-2:][::-1] if node.transpose_second else b[-2:])
        fits = len(a) == len(b) >= 2 and a[:-2] == b[:-2] and a[-1] == columns[-2]
        _expect(node, fits and node.shape == (*a[:-1], columns[-1]), f"multiplies {a} by {columns} into {node.shape}")


def _check_neuron(node: NeuronNode, sources: list[Node]) -> None:
    spec = node.spec
    _expect(node, spec.compare == ">=", "compares with '>'; integer networks know one comparator, '>='")
    _expect(node, all(f is not None for f in spec.state_formats().values()), "has a state without an integer format")
    _check_exact_leaks(node)
    for source in sources:
        _expect(node, source.shape == node.shape, f"of shape {node.shape} is fed by {source.name} of {source.shape}")
    for name in needed_params(spec):
        _expect(node, name in node.params, f"lacks the parameter {name}")
    for name, value in (*node.params.items(), *((f"gain {k}", g) for k, g in enumerate(node.gains))):
        shape = np.shape(value)
        _expect(node, _spreads_to(shape, node.shape), f"has {name} of shape {shape}, which does not fit {node.shape}")
        _expect(node, np.asarray(value).dtype == np.int64, f"has {name} of type {np.asarray(value).dtype}, not int64")


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
        alike = len({(len(s), s[:axis] + s[axis + 1 :]) for s in (*shapes, node.shape)}) == 1
        fits = 0 <= axis < len(node.shape) and alike and sum(s[axis] for s in shapes) == node.shape[axis]
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

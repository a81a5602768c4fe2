"""The golden model: an `IntNet` run with `IntOps` in numpy int64.

This is the truth that simulation and every export must equal, spike by spike and state
by state.  It is written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spikequant.law.errors import DataError
from spikequant.law.formats import IntArray
from spikequant.law.network import (
    Decoder,
    Edge,
    InputNode,
    IntNet,
    JoinNode,
    MatmulNode,
    NeuronNode,
    Node,
    PoolNode,
    ReshapeNode,
    SynapseNode,
)
from spikequant.law.neurons import prepare, step
from spikequant.law.noise import noise_words, step_key
from spikequant.law.ops import IntOps

OPS = IntOps()


@dataclass(frozen=True, eq=False)
class Run:
    """What a run gave.

    Attributes:
        scores: ``[N, ...]`` integers, after the decoder.
        outputs: per neuron node what it emitted, ``[T, N, ...]``.
        states: per neuron node and state name the stored codes, ``[T, N, ...]``.
    """

    scores: IntArray
    outputs: dict[str, IntArray] = field(default_factory=dict)
    states: dict[str, dict[str, IntArray]] = field(default_factory=dict)


def encode(net: IntNet, x: Any) -> IntArray:
    """Real data as the network's input codes: ``clip(round_half_even(x / scale))`` in float32.

    Raises:
        DataError: NaN, infinity, a wrong shape, or codes outside the input's format.
    """
    node = net.input
    values = np.asarray(x)
    if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
        raise DataError(f"input {node.name}: the data hold NaN or infinite values; remove them first")
    if node.scale is not None:
        rounded = np.rint(values.astype(np.float32) / np.float32(node.scale))
        codes = np.clip(rounded, node.format.min, node.format.max).astype(np.int64)
    else:
        codes = values.astype(np.int64)
        if np.any(codes != values):
            raise DataError(
                f"input {node.name}: expected whole numbers (spikes or counts), got {values.dtype} fractions"
            )
    return check_codes(net, codes)


def check_codes(net: IntNet, codes: IntArray) -> IntArray:
    """`codes` if they fit the input node: ``[N, *shape]`` static, ``[T, N, *shape]`` else."""
    node = net.input
    leading = 1 if node.static else 2
    if codes.ndim != leading + len(node.shape) or codes.shape[leading:] != node.shape:
        wanted = ", ".join(("N",) if node.static else ("T", "N"))
        raise DataError(f"input {node.name}: expected [{wanted}, {', '.join(map(str, node.shape))}], got {codes.shape}")
    if codes.shape[0] == 0 or codes.shape[leading - 1] == 0:
        raise DataError(f"input {node.name}: no samples or no time steps in the shape {codes.shape}")
    if not node.format.holds(codes):
        raise DataError(
            f"input {node.name}: codes from {codes.min()} to {codes.max()}, "
            f"but the network takes {node.format.min} to {node.format.max}"
        )
    return codes


def run(
    net: IntNet,
    codes: IntArray,
    *,
    first_sample: int = 0,
    trace: bool = True,
    machine: type[Machine] | None = None,
) -> Run:
    """Run the network on input codes.

    Args:
        net: the network.
        codes: ``[N, *shape]`` for a static input, ``[T, N, *shape]`` otherwise (see `encode`).
        first_sample: number of the first sample in the noise stream of stochastic rounding.
        trace: keep every spike and state.
        machine: another way to run the nodes, for readers that share the rest; the golden one where absent.
    """
    codes = check_codes(net, np.asarray(codes, dtype=np.int64))
    steps = net.steps if net.input.static else codes.shape[0]
    batch = codes.shape[0] if net.input.static else codes.shape[1]
    held = (machine or Machine)(net, batch, first_sample)
    train: list[IntArray] = []
    outputs: dict[str, list[IntArray]] = {}
    states: dict[str, dict[str, list[IntArray]]] = {}
    for t in range(steps):
        values = held.step(t, codes if net.input.static else codes[t])
        train.append(decoded_value(net, held, values))
        if trace:
            for node in net.neurons:
                outputs.setdefault(node.name, []).append(values[node.name])
                for name, value in held.states[node.name].items():
                    states.setdefault(node.name, {}).setdefault(name, []).append(value)
    return Run(
        decode(net.decoder, np.stack(train)),
        {name: np.stack(parts) for name, parts in outputs.items()},
        {name: {k: np.stack(v) for k, v in parts.items()} for name, parts in states.items()},
    )


def decoded_value(net: IntNet, machine: Machine, values: Mapping[str, IntArray]) -> IntArray:
    """What the decoder reads in one step: a node's value, or the stored membrane of a neuron layer."""
    source = net.node(net.decoder.source)
    reads_membrane = net.decoder.name.startswith("membrane") and isinstance(source, NeuronNode)
    return machine.states[source.name]["v"] if reads_membrane else values[source.name]


def decode(decoder: Decoder, train: IntArray) -> IntArray:
    """Integer scores from the train ``[T, N, ...]`` of the decoder's source."""
    scores: IntArray = train if decoder.gains is None else train * decoder.gains
    if decoder.name in ("spike_count", "membrane_sum"):
        scores = scores.sum(axis=0)
    elif decoder.name == "membrane_last":
        scores = scores[-1]
    elif decoder.name == "membrane_max":
        scores = scores.max(axis=0)
    return scores


class Machine:
    """The state of a run: registers of the neurons, and what delayed edges still need."""

    def __init__(self, net: IntNet, batch: int, first_sample: int) -> None:
        self.net, self.batch = net, batch
        self.samples = np.arange(first_sample, first_sample + batch, dtype=np.int64)
        self.states = {
            node.name: {s: np.zeros((batch, *node.shape), np.int64) for s in node.spec.state_formats()}
            for node in net.neurons
        }
        self.params = {node.name: prepare(OPS, node.spec, node.params) for node in net.neurons}
        self.layer = {node.name: k for k, node in enumerate(net.neurons)}
        self.history: list[dict[str, IntArray]] = []
        self.longest = max((e.delay for n in net.nodes for e in n.inputs), default=0)
        self.constant = static_nodes(net)
        self.kept: dict[str, IntArray] = {}

    def step(self, t: int, x: IntArray) -> dict[str, IntArray]:
        """The values of all nodes in step `t`."""
        values: dict[str, IntArray] = {}
        for node in self.net.nodes:
            if node.name in self.kept:
                values[node.name] = self.kept[node.name]
                continue
            values[node.name] = self.value(node, t, x, values)
            if node.name in self.constant:
                self.kept[node.name] = values[node.name]
        if self.longest:
            self.history = [values, *self.history[: self.longest - 1]]
        return values

    def value(self, node: Node, t: int, x: IntArray, values: dict[str, IntArray]) -> IntArray:
        """The value of one node."""
        if isinstance(node, InputNode):
            return x
        sources = [self.edge(edge, values) for edge in node.inputs]
        if isinstance(node, NeuronNode):
            return self.neuron(node, t, sources)
        return APPLY[type(node)](node, sources)

    def edge(self, edge: Edge, values: dict[str, IntArray]) -> IntArray:
        """What an edge carries, some steps ago."""
        if edge.delay == 0:
            return values[edge.source]
        if edge.delay <= len(self.history):
            return self.history[edge.delay - 1][edge.source]
        return np.zeros((self.batch, *self.net.node(edge.source).shape), np.int64)

    def neuron(self, node: NeuronNode, t: int, sources: list[IntArray]) -> IntArray:
        """One step of a neuron layer; its states are replaced."""
        x = OPS.mul(node.gains[0], sources[0])
        for gain, source in zip(node.gains[1:], sources[1:], strict=True):
            x = OPS.add(x, OPS.mul(gain, source))

        def words(state: str) -> IntArray:
            key = step_key(node.seed, self.layer[node.name], state, t)
            return noise_words(key, self.samples, node.shape)

        tick: Any = np.int64((t + 1) % node.spec.adapt_every == 0)
        state, output = step(OPS, node.spec, self.params[node.name], self.states[node.name], x, noise=words, tick=tick)
        full = (self.batch, *node.shape)
        self.states[node.name] = {name: np.broadcast_to(value, full) for name, value in state.items()}
        return np.broadcast_to(output, full)


def static_nodes(net: IntNet) -> set[str]:
    """Nodes whose value never changes because only a static input reaches them without delay."""
    constant: set[str] = set()
    for node in net.nodes:
        if isinstance(node, InputNode):
            if node.static:
                constant.add(node.name)
        elif not isinstance(node, NeuronNode) and all(e.delay == 0 and e.source in constant for e in node.inputs):
            constant.add(node.name)
    return constant


def _synapse(node: Any, sources: list[IntArray]) -> IntArray:
    return OPS.dot(sources[0], node.product)


def _pool(node: Any, sources: list[IntArray]) -> IntArray:
    axes = len(node.kernel)
    lowest = np.iinfo(np.int64).min if node.kind == "max" else 0
    edges = [(0, 0)] * (sources[0].ndim - axes) + [(p, p) for p in node.padding]
    padded = np.pad(sources[0], edges, constant_values=lowest)
    spatial = tuple(range(padded.ndim - axes, padded.ndim))
    views = np.lib.stride_tricks.sliding_window_view(padded, node.kernel, axis=spatial)
    slices = [slice(None)] * (padded.ndim - axes) + [slice(None, None, s) for s in node.stride]
    windows = views[tuple(slices)]
    last = tuple(range(-axes, 0))
    result: IntArray = windows.max(axis=last) if node.kind == "max" else windows.sum(axis=last)
    return result


def _reshape(node: Any, sources: list[IntArray]) -> IntArray:
    return sources[0].reshape(len(sources[0]), *node.shape)


def _join(node: Any, sources: list[IntArray]) -> IntArray:
    if node.kind == "iand":
        return OPS.mul(OPS.sub(OPS.const(1), sources[0]), sources[1])
    scaled = [OPS.mul(OPS.const(g), s) for g, s in zip(node.gains, sources, strict=True)]
    if node.kind == "concat":
        return np.concatenate(scaled, axis=node.axis + 1)
    total = scaled[0]
    for part in scaled[1:]:
        if node.kind == "add":
            total = OPS.add(total, part)
        elif node.kind == "max":
            total = OPS.max(total, part)
        else:
            total = OPS.mul(total, part)
    return total


def _matmul(node: Any, sources: list[IntArray]) -> IntArray:
    second = sources[1].swapaxes(-1, -2) if node.transpose_second else sources[1]
    result: IntArray = sources[0] @ second
    return result


APPLY: Mapping[type, Callable[[Any, list[IntArray]], IntArray]] = {
    SynapseNode: _synapse,
    PoolNode: _pool,
    ReshapeNode: _reshape,
    JoinNode: _join,
    MatmulNode: _matmul,
}

__all__ = ["Machine", "Run", "check_codes", "decode", "decoded_value", "encode", "run", "static_nodes"]

"""The network as stages: which networks may run so, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikequant.law.bounds import Interval
from spikequant.law.errors import SpikequantError, Unsupported
from spikequant.law.formats import IntArray
from spikequant.law.network import (
    InputNode,
    IntNet,
    JoinNode,
    NeuronNode,
    Node,
    PoolNode,
    ReshapeNode,
    SynapseNode,
)
from spikequant.law.widths import network_ranges, prove_network
from spikequant.nn.layerwise.neurons import neurons
from spikequant.nn.layerwise.stages import (
    FlattenStage,
    JoinStage,
    PoolStage,
    SpikeStage,
    Stage,
    WideStage,
    gain_of,
    map_of,
)
from spikequant.nn.layerwise.values import Bytes, packed
from spikequant.nn.products import kernels
from spikequant.nn.torch_ops import encode_ste
from spikequant.readers import golden

SINGLE, DOUBLE = 24, 53
"""Bits of the whole numbers that float and double hold exactly."""


class LayerwiseNet:
    """An integer network that runs a layer over all steps before the next one begins.

    Raises:
        Unsupported: it cannot; see `layerwise`.
    """

    def __init__(self, net: IntNet) -> None:
        self.net = net
        self.stages = _stages(net)
        self.reads = {node.name: _reads(net, node) for node in net.nodes if node.name in self.stages}
        self.last_reader = {source: name for name, sources in self.reads.items() for source in sources}

    def run(self, x: Any, *, first_sample: int = 0) -> IntArray:
        """Scores of a batch as the network takes it: ``[T, N, ...]``, or ``[N, ...]`` for a static input.

        Args:
            x: data as the network takes them.
            first_sample: number of the first sample, on which the noise of stochastic rounding depends.

        Raises:
            DataError: data that do not fit the input.
        """
        given, steps = self._encoded(x)
        return self._scores(given, steps, first_sample)

    def _scores(self, given: Bytes, steps: int, first_sample: int) -> IntArray:
        values: dict[str, Any] = {self.net.input.name: given}
        for name, stage in self.stages.items():
            values[name] = stage.run(values, steps, first_sample)
            for source in self.reads[name]:
                if self.last_reader[source] == name and source != self.net.decoder.source:
                    values.pop(source, None)
        return golden.decode(self.net.decoder, self._train(values[self.net.decoder.source], steps))

    def _encoded(self, x: Any) -> tuple[Bytes, int]:
        """The input as bytes, and the number of steps; one that is the same at every step is encoded once."""
        node = self.net.input
        given = x if isinstance(x, Tensor) else torch.from_numpy(np.asarray(x))
        lead = 1 if node.static else 2
        fits = given.dim() == lead + len(node.shape) and tuple(given.shape[lead:]) == node.shape and given.numel() > 0
        if fits and given.dtype == torch.float32:
            steps = self.net.steps if node.static else given.shape[0]
            apart = given[:, None] if node.static else given.transpose(0, 1)
            apart = apart[:, :1] if steps > 1 and not node.static and given.stride(0) == 0 else apart
            if node.scale is not None:
                scale = torch.tensor(node.scale, dtype=torch.float32)
                apart = encode_ste(apart.detach(), scale, node.format.min, node.format.max)  # NaN stays NaN
            found = packed(apart, node.shape, node.format.min, node.format.max)
            if found is not None and (node.scale is None or bool(torch.isfinite(given).all())):
                return found, steps
        codes = golden.encode(self.net, np.asarray(given.detach()))  # other types; or it says what is wrong
        steps = self.net.steps if node.static else len(codes)
        apart = torch.from_numpy(codes.astype(np.float32))
        found = packed(apart[:, None] if node.static else apart.transpose(0, 1), node.shape, node.format.min,
                       node.format.max)  # fmt: skip
        assert found is not None
        return found, steps

    def _train(self, value: Bytes | Tensor, steps: int) -> IntArray:
        data, shift = (value.over(steps), value.shift) if isinstance(value, Bytes) else (value, 0)
        shape = self.net.node(self.net.decoder.source).shape
        train = data.permute(1, 0, 4, 2, 3).to(torch.int64).numpy() - shift
        return np.ascontiguousarray(train).reshape(*train.shape[:2], *shape)


def _reads(net: IntNet, node: Node) -> list[str]:
    """The values that a stage reads: neurons read what their synapse reads."""
    before = [net.node(edge.source) for edge in node.inputs]
    return [e.source for n in before for e in n.inputs] if isinstance(node, NeuronNode) else [n.name for n in before]


def layerwise(net: IntNet) -> tuple[LayerwiseNet | None, str]:
    """The network layer by layer, or None and why it does not run so."""
    try:
        return LayerwiseNet(net), ""
    except (SpikequantError, OSError) as error:
        return None, str(error)


def _stages(net: IntNet) -> dict[str, Stage]:
    """A stage for every node but the input and synapses, which run with their neurons.

    Raises:
        Unsupported: a node has none; it is named.
    """
    if kernels.library() is None or not kernels.has_vnni():
        raise Unsupported("byte products need a C compiler and a processor with AVX-512 VNNI")
    if any(edge.delay for node in net.nodes for edge in node.inputs):
        raise Unsupported("a layer reads an earlier step of another one")
    low, high = net.input.format.min, net.input.format.max
    if low < -128 or high > (127 if low < 0 else 255):
        raise Unsupported("the input is wider than a byte")
    ranges, bits = network_ranges(net), {name: b.accumulator_bits for name, b in prove_network(net).items()}
    found: dict[str, Stage] = {}
    for node in net.nodes:
        if len(node.shape) > 3:
            raise Unsupported(f"{node.name}: a shape of more than three axes")
        stage = _stage(net, node, ranges, bits)
        if isinstance(stage, str):
            raise Unsupported(f"{node.name}: {stage}")
        if stage is not None:
            found[node.name] = stage
    return found


def _stage(net: IntNet, node: Node, ranges: dict[str, Interval], bits: dict[str, int]) -> Stage | str | None:
    if isinstance(node, InputNode):
        return None
    if isinstance(node, SynapseNode):
        readers = [n for n in net.nodes if any(e.source == node.name for e in n.inputs)]
        alone = len(readers) == 1 and isinstance(readers[0], NeuronNode) and net.decoder.source != node.name
        return None if alone else "sums that are read by more than one layer of neurons"
    if isinstance(node, NeuronNode):
        return _neuron_stage(net, node, ranges, bits[node.name])
    signed = [e.source for e in node.inputs if _least(ranges[e.source]) < 0]
    if (
        _least(ranges[node.name]) < 0
        or _most(ranges[node.name]) > 255
        or (signed and not isinstance(node, ReshapeNode))
    ):
        return "values beyond a byte"
    if isinstance(node, PoolNode):
        return PoolStage(node) if len(node.kernel) < len(node.shape) else "a pool over channels"
    if isinstance(node, ReshapeNode):
        return FlattenStage(node.inputs[0].source) if len(node.shape) == 1 else "a reshape that is no flatten"
    if isinstance(node, JoinNode):
        whole = node.kind != "concat" or node.axis == 0
        return JoinStage(node) if whole else "a concatenation of places"
    return "a product of two activations"


def _neuron_stage(net: IntNet, node: NeuronNode, ranges: dict[str, Interval], bits: int) -> Stage | str:
    before = net.node(node.inputs[0].source)
    if len(node.inputs) != 1 or not isinstance(before, SynapseNode):
        return "neurons behind more than one synapse"
    if net.decoder.source == node.name and net.decoder.name.startswith("membrane") and node.spec.output != "state":
        return "a decoder that reads the membrane of spiking neurons"
    shape = net.node(before.inputs[0].source).shape
    linear_places = before.product.kind == "linear" and len(shape) != 1
    made = "a linear map over places" if linear_places else map_of(before, shape)
    if isinstance(made, str):
        return made
    sums = max(abs(_least(ranges[before.name])), abs(_most(ranges[before.name])))
    if sums >= 2**SINGLE or 255 * int(before.product.l1().max(initial=0)) >= 2**31:
        return "sums beyond float32"
    spikes = node.spec.output == "spike" and _least(ranges[node.name]) >= 0 and _most(ranges[node.name]) <= 255
    double = not (spikes and bits <= SINGLE)
    if bits > DOUBLE or (double and net.decoder.source != node.name):
        return "neurons of more than 24 bits"
    layer = list(net.neurons).index(node)
    kernel = neurons(node, layer, double=double)
    gain = gain_of(node, torch.float64 if double else torch.float32)
    if kernel is None or gain is None:
        return "parameters or a gain that are neither one value nor one per channel"
    return WideStage(made, kernel, gain) if double else SpikeStage(made, kernel, gain)


def _least(value: Interval) -> int:
    return int(np.min(value.low))


def _most(value: Interval) -> int:
    return int(np.max(value.high))


__all__ = ["LayerwiseNet", "layerwise"]

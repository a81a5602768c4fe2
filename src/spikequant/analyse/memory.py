"""Memory of a model in true bits, before and after quantization, by layer and role."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from spikequant.capture import Graph, GraphNode
from spikequant.measure import MemoryRow
from spikequant.measure.footprint import (
    INPUT_SCALE_BITS,
    STATE_ROLES,
    delay_row,
    integer_row,
    parameter_rows,
    readout_rows,
    spike_bits,
    state_rows,
)
from spikequant.nn import (
    DROPOUTS,
    ENCODERS,
    NORMS,
    SYNAPSES,
    FoldedNorm,
    NeuronLayer,
    Normalize,
    QuantizedNeuron,
    Synapse,
)
from spikequant.quantize.readout import membrane_worth

REAL_BITS = 32
READOUT_STATE_BITS = 48
"""Register of a last layer without a neuron, as `lower` makes it."""


def memory_rows(
    model: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    graph: Graph | None = None,
    input_bits: int = REAL_BITS,
    steps: int = 1,
) -> tuple[MemoryRow, ...]:
    """Every number that a real or quantized model must store.

    Of a frozen model these are the rows of `measure.network_memory` for its integer
    network, which says what counts.  A real model: 32 bits each, a spike 1 bit.  What is
    real in a partly quantized model counts 32 bits.

    Args:
        model: real, quantized or frozen.
        shapes: features of each spiking layer (`Observation.shapes`).
        graph: its captured graph; without it input, readout and delay lines are left out.
        input_bits: bits of one value of the input, where no layer quantizes it.
        steps: time steps of a sample.
    """
    rows: list[MemoryRow] = []
    places = {} if graph is None else {node.path: node for node in graph.nodes if node.kind == "module"}
    for path, module in model.named_modules():
        node = places.get(path)
        if isinstance(module, Synapse):
            rows += _synapse(path, module, graph)
        elif isinstance(module, SYNAPSES):
            rows += _real_synapse(path, module, graph)
        elif isinstance(module, NORMS):
            rows += [MemoryRow(path, role, 2 * module.num_features, REAL_BITS) for role in ("scale", "bias")]
        elif isinstance(module, NeuronLayer):
            rows += _neuron(path, module, shapes.get(path, () if node is None else node.shape))
        elif isinstance(module, Normalize) and not module.folded:
            rows.append(MemoryRow(path, "scale", 2 * module.mean.numel(), REAL_BITS))
        elif not isinstance(module, FoldedNorm):  # a folded batch norm lies in thresholds and biases
            rows += [MemoryRow(path, "weight", p.numel(), REAL_BITS) for p in module.parameters(recurse=False)]
    return tuple(rows if graph is None else [*rows, *_graph_rows(model, graph, input_bits, steps)])


def connection_sparsity(model: nn.Module) -> float:
    """Share of weights, or codes, that are 0; NeuroBench's definition, unrounded."""
    zeros = total = 0
    for module in model.modules():
        if isinstance(module, (Synapse, *SYNAPSES)):
            weight = module.codes() if isinstance(module, Synapse) else module.weight
            zeros += int((weight == 0).sum())
            total += weight.numel()
    return zeros / total if total else 0.0


def _real_synapse(path: str, module: Any, graph: Graph | None) -> Iterator[MemoryRow]:
    yield MemoryRow(path, "weight", module.weight.numel(), REAL_BITS, rows=len(module.weight))
    if module.bias is not None:
        yield MemoryRow(path, "bias", module.bias.numel(), REAL_BITS)
    node = _readout(path, graph)
    if node is not None:
        yield MemoryRow(path, "readout", math.prod(node.shape), REAL_BITS)


def _readout(path: str, graph: Graph | None) -> GraphNode | None:
    """The node of a layer if it gives the network's result itself."""
    if graph is None:
        return None
    node = graph.node(graph.output.source)
    return node if node.path == path else None


@torch.no_grad()
def _synapse(path: str, module: Synapse, graph: Graph | None) -> Iterator[MemoryRow]:
    codes, fmt, bits = module.codes(), module.quantizer.code_format, module.quantizer.bits
    norm = None if module.link is None else module.link.branch.norm
    if norm is not None:  # the sign of gamma goes into the codes, and may turn the lowest one over
        turned = codes[norm.sign() < 0]
        bits += int(turned.numel() > 0 and -float(turned.min()) > fmt.max)
    yield MemoryRow(path, "weight", codes.numel(), bits, rows=len(codes))
    book = module.codebook()
    if book is not None:
        yield integer_row(path, "codebook", book.numpy(force=True).astype("int64"))
    if module.link is not None:
        return
    bias, node = module.readout_bias(), _readout(path, graph)
    if node is None:
        if bias is not None:
            yield integer_row(path, "bias", bias.numpy(force=True).astype("int64"))
        return
    params: dict[str, Any] = {"v_shift": 0, "v_load": 1}
    if graph is not None and graph.output.reduction not in ("sum", "mean"):
        params["leak"] = 0
    if bias is not None:
        params["bias"] = bias.numpy(force=True).astype("int64")
    yield from parameter_rows(path, params)
    yield integer_row(path, "scale", 2**module.readout_bits)
    yield MemoryRow(path, "readout", math.prod(node.shape), READOUT_STATE_BITS)


@torch.no_grad()
def _neuron(path: str, module: NeuronLayer, shape: tuple[int, ...]) -> Iterator[MemoryRow]:
    count = math.prod(shape)
    if not isinstance(module, QuantizedNeuron):
        spec = module.neuron_spec
        for name in module.value_names:
            yield MemoryRow(path, _real_role(name), module.real_value(name).numel(), REAL_BITS)
        for state in spec.state_formats():
            if state != "s":
                yield MemoryRow(path, STATE_ROLES[state], count, REAL_BITS)
        if spec.output == "spike":
            yield MemoryRow(path, "spike_buffer", count, spike_bits(spec))
        return
    found = module.integers()
    params = {name: value.numpy(force=True).astype("int64") for name, value in found.params.items()}
    yield from parameter_rows(path, params)
    for gain in found.gains:
        yield integer_row(path, "scale", abs(gain.numpy(force=True).astype("int64")))
    yield from state_rows(path, found.spec, count)


def _real_role(name: str) -> str:
    roles = {"reset_to": "reset", "reset_by": "reset", "gain": "scale", "v_bias": "bias"}
    return "leak" if name.startswith("leak") else roles.get(name, "threshold")


def _graph_rows(model: nn.Module, graph: Graph, input_bits: int, steps: int) -> Iterator[MemoryRow]:
    """Input, delay lines and what is added up over time: what only the graph knows."""
    start = graph.node("input")
    quantized = [m for m in model.modules() if isinstance(m, Synapse) and m.input_format and m.input_scale is not None]
    if any(isinstance(m, ENCODERS) for m in model.modules()):
        input_bits = 1
    elif quantized and quantized[0].input_format is not None:
        input_bits = quantized[0].input_format.bits
    yield MemoryRow("input", "input", math.prod(start.shape), input_bits)
    if quantized:
        yield MemoryRow("input", "scale", 1, INPUT_SCALE_BITS)
    for node in graph.nodes:
        delay = max((e.delay for n in graph.nodes for e in n.inputs if e.source == node.name), default=0)
        if delay:
            yield delay_row(node.name, math.prod(node.shape), _value_bits(model, graph, node, input_bits), delay)
    output = graph.node(graph.output.source)
    module = model.get_submodule(output.path) if output.kind == "state" else _module(model, output)
    if isinstance(module, (Synapse, *SYNAPSES)):
        decoder, bits = {"max": "membrane_max"}.get(graph.output.reduction, ""), READOUT_STATE_BITS
    elif isinstance(module, NeuronLayer) and (output.kind == "state" or module.neuron_spec.output == "state"):
        decoder = {"sum": "membrane_sum", "mean": "membrane_sum", "max": "membrane_max"}.get(graph.output.reduction, "")
        v = module.integers().spec.v if isinstance(module, QuantizedNeuron) else None
        if isinstance(module, QuantizedNeuron) and module.is_frozen:
            gains, _ = membrane_worth(module, tuple(output.shape), output.path)
            if gains is not None:
                yield integer_row("output", "scale", gains)
        bits = REAL_BITS if v is None else v.bits
    else:
        decoder = {"sum": "spike_count", "mean": "spike_count"}.get(graph.output.reduction, "")
        bits = _value_bits(model, graph, output, input_bits)
    rows = readout_rows("output", decoder, math.prod(output.shape), bits=bits, steps=steps)
    real = not any(isinstance(m, (Synapse, QuantizedNeuron)) for m in model.modules())
    yield from (MemoryRow(row.layer, row.role, row.count, REAL_BITS) if real else row for row in rows)


def _module(model: nn.Module, node: GraphNode) -> nn.Module | None:
    return model.get_submodule(node.path) if node.kind == "module" else None


def _value_bits(model: nn.Module, graph: Graph, node: GraphNode, input_bits: int) -> int:
    """Bits of one delayed value, as `measure.footprint` counts them."""
    module = _module(model, node)
    while node.kind == "reshape" or isinstance(module, (nn.Flatten, nn.MaxPool1d, nn.MaxPool2d, *DROPOUTS)):
        node = graph.node(node.inputs[0].source)
        module = _module(model, node)
    if isinstance(module, NeuronLayer) and module.neuron_spec.output == "spike":
        return spike_bits(module.neuron_spec)
    return input_bits if node.kind == "input" or isinstance(module, ENCODERS) else REAL_BITS

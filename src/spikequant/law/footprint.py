"""What an integer network must store, number by number.

Flash: weight codes at the bits of their quantizer, and the integers of a codebook; thresholds, resets,
biases, leaks, shifts and gains at the fewest two's complement bits that hold all values of the array.  A load that is
``2^shift`` is not stored; a weight scale is not either, it lies in the threshold.

RAM: every state of every neuron; the spikes of one step of every layer, from which the next layers
and a delayed reset read; for an edge with a delay of ``d`` steps, ``d`` more steps of its source,
once for all its readers; one step of the input; what the decoder adds up over time.

Not counted, because it depends on the program and not on the network: the sums of a layer while
they are formed, pooled and joined values that are computed when they are read, loop counters, code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from spikequant.law.errors import DataError
from spikequant.law.formats import signed_bits_for
from spikequant.law.memory import MemoryRow
from spikequant.law.network import InputNode, IntNet, NeuronNode, Node, PoolNode, ReshapeNode, SynapseNode
from spikequant.law.spec import LEVEL_PARAMS, NeuronSpec

PARAMETER_ROLES: Mapping[str, str] = {
    **dict.fromkeys(("theta", "floor", "adapt"), "threshold"),
    **dict.fromkeys(("bias", "v_bias"), "bias"),
    "reset": "reset",
    **dict.fromkeys(("leak", "leak2", "leak_i", "leak_i2", "leak_a", "leak_a2"), "leak"),
    **dict.fromkeys(LEVEL_PARAMS, "codebook"),
    **{f"{state}_{name}": "scale" for state in "viax" for name in ("load", "shift", "mul")},
}
STATE_ROLES: Mapping[str, str] = {
    "v": "membrane",
    "i": "current",
    "a": "adaptive_threshold",
    "s": "spike_buffer",
    "r": "refractory",
}
INPUT_SCALE_BITS = 32
WIDE_BITS = 32
"""A delayed value that is neither spikes nor input, such as a current, counts 32 bits."""


def network_memory(net: IntNet) -> tuple[MemoryRow, ...]:
    """The rows of an integer network; a readout's rows carry the name of its layer."""
    rows: list[MemoryRow] = []
    for node in net.nodes:
        if isinstance(node, SynapseNode):
            codes = node.product.codes
            rows.append(MemoryRow(node.name, "weight", codes.size, _code_bits(node), rows=codes.shape[0]))
            if node.codebook is not None:
                rows.append(integer_row(node.name, "codebook", node.codebook))
        elif isinstance(node, NeuronNode):
            rows += _neuron_rows(net, node)
    return (*rows, *_input_rows(net.input), *_delay_rows(net), *_decoder_rows(net))


def parameter_rows(layer: str, params: Mapping[str, Any]) -> Iterator[MemoryRow]:
    """The integer parameters of one layer of neurons, as they are stored.

    Raises:
        DataError: a parameter whose role is unknown.

    >>> list(parameter_rows("lif", {"theta": np.array([100, 120]), "v_shift": np.array(3), "v_load": np.array(8)}))
    [MemoryRow(layer='lif', role='threshold', count=2, bits=8, rows=1), \
MemoryRow(layer='lif', role='scale', count=1, bits=3, rows=1)]
    """
    for name, value in params.items():
        if name not in PARAMETER_ROLES:
            raise DataError(f"{layer}: unknown parameter {name!r}; expected one of {', '.join(PARAMETER_ROLES)}")
        shift = params.get(name.replace("_load", "_shift"))
        if name.endswith("_load") and shift is not None and np.array_equal(value, 2 ** np.asarray(shift)):
            continue
        yield integer_row(layer, PARAMETER_ROLES[name], value)


def integer_row(layer: str, role: str, values: Any) -> MemoryRow:
    """An array at the fewest two's complement bits that hold it."""
    array = np.asarray(values)
    return MemoryRow(layer, role, array.size, signed_bits_for(int(array.min()), int(array.max())))


def state_rows(layer: str, spec: NeuronSpec, neurons: int) -> Iterator[MemoryRow]:
    """The states of `neurons` neurons and their spikes of one step, which a delayed reset reads too."""
    for state, fmt in spec.state_formats().items():
        if fmt is not None and state != "s":
            bits = spec.v.bits if state == "v" and spec.v is not None else fmt.bits
            yield MemoryRow(layer, STATE_ROLES[state], neurons, bits)
    if spec.output == "spike":
        yield MemoryRow(layer, "spike_buffer", neurons, spike_bits(spec))


def spike_bits(spec: NeuronSpec) -> int:
    """Bits of what a neuron emits in one step."""
    return max(1, spec.spikes_max.bit_length())


def readout_rows(layer: str, decoder: str, count: int, *, bits: int, steps: int) -> Iterator[MemoryRow]:
    """What a decoder adds up, or keeps as the largest so far, over `steps` values of `bits` bits."""
    if decoder == "spike_count":
        yield MemoryRow(layer, "readout", count, ((2**bits - 1) * steps).bit_length())
    elif decoder in ("membrane_sum", "membrane_max"):
        yield MemoryRow(layer, "readout", count, bits + (math.ceil(math.log2(steps)) if decoder[9:] == "sum" else 0))


def delay_row(source: str, count: int, bits: int, delay: int) -> MemoryRow:
    """The last `delay` steps of `count` values, one row for each step."""
    return MemoryRow(source, "delay_line", count * delay, bits, rows=delay)


def _neuron_rows(net: IntNet, node: NeuronNode) -> Iterator[MemoryRow]:
    is_readout = node.name.endswith(".readout")
    layer, neurons = node.name.removesuffix(".readout"), math.prod(node.shape)
    yield from parameter_rows(layer, node.params)
    for gain in node.gains:
        yield integer_row(layer, "scale", gain)
    for row in state_rows(layer, node.spec, neurons):
        yield MemoryRow(layer, "readout", row.count, row.bits) if is_readout else row


def _code_bits(node: SynapseNode) -> int:
    """Bits of a stored code; where the sign of a gamma turned the lowest code over, one more than planned."""
    turned = node.format.signed and not node.format.narrow
    return node.format.bits if turned else node.bits


def _input_rows(node: InputNode) -> Iterator[MemoryRow]:
    yield MemoryRow(node.name, "input", math.prod(node.shape), node.format.bits)
    if node.scale is not None:
        yield MemoryRow(node.name, "scale", 1, INPUT_SCALE_BITS)


def _delay_rows(net: IntNet) -> Iterator[MemoryRow]:
    longest: dict[str, int] = {}
    for node in net.nodes:
        for edge in node.inputs:
            longest[edge.source] = max(edge.delay, longest.get(edge.source, 0))
    for source, delay in longest.items():
        if delay:
            node = net.node(source)
            yield delay_row(source, math.prod(node.shape), _value_bits(net, node), delay)


def _value_bits(net: IntNet, node: Node) -> int:
    """Bits of one delayed value; reshaping and maxima leave them alone."""
    while isinstance(node, ReshapeNode) or (isinstance(node, PoolNode) and node.kind == "max"):
        node = net.node(node.inputs[0].source)
    if isinstance(node, NeuronNode) and node.spec.output == "spike":
        return spike_bits(node.spec)
    return node.format.bits if isinstance(node, InputNode) else WIDE_BITS


def _decoder_rows(net: IntNet) -> Iterator[MemoryRow]:
    decoder, source = net.decoder, net.node(net.decoder.source)
    if decoder.gains is not None:
        yield integer_row("output", "scale", decoder.gains)
    bits = _value_bits(net, source)
    if isinstance(source, NeuronNode) and decoder.name.startswith("membrane") and source.spec.v is not None:
        bits = source.spec.v.bits
    yield from readout_rows("output", decoder.name, math.prod(source.shape), bits=bits, steps=net.steps)

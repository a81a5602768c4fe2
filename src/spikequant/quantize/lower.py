"""`lower`: a frozen model becomes an `IntNet`; integers are copied, none is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.capture import Graph, GraphNode, capture
from spikequant.law.errors import NotFrozen, Unsupported
from spikequant.law.formats import IntArray, IntFormat
from spikequant.law.network import (
    Decoder,
    DecoderName,
    Edge,
    InputNode,
    IntNet,
    JoinNode,
    NeuronNode,
    Node,
    PoolNode,
    ReshapeNode,
    SynapseNode,
    TestVectors,
)
from spikequant.law.products import Product
from spikequant.law.spec import Leak, NeuronSpec, StateFormat
from spikequant.law.widths import prove_network
from spikequant.nn import DROPOUTS, ENCODERS, Neuron, Normalize, QuantizedNeuron, Synapse
from spikequant.quantize.groups import (
    NORMALIZING,
    Path,
    Structure,
    module_of,
    structure,
)
from spikequant.quantize.pooling import functional_pool, pool_options
from spikequant.quantize.readout import membrane_worth
from spikequant.targets import require
from spikequant.targets.reference import REFERENCE

READOUT_BITS = 48
JOIN_KINDS = {"add": "add", "product": "product", "iand": "iand", "maximum": "max", "concat": "concat"}


@dataclass
class _Lowering:
    model: nn.Module
    found: Structure
    nodes: list[Node] = field(default_factory=list)
    aliases: dict[str, Edge] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.found.graph

    @property
    def target(self) -> str:
        """The profile that the neurons were made for."""
        rules = [m.choice.chip for m in self.model.modules() if isinstance(m, QuantizedNeuron)]
        return next((rule.target for rule in rules if rule is not None), REFERENCE.tag)

    def edge(self, source: str, delay: int) -> Edge:
        while source in self.aliases:
            source, delay = self.aliases[source].source, delay + self.aliases[source].delay
        return Edge(source, delay)

    def edges(self, node: GraphNode) -> tuple[Edge, ...]:
        return tuple(self.edge(e.source, e.delay) for e in node.inputs)


def lower(model: nn.Module, example_input: Tensor, *, metadata: Mapping[str, Any] | None = None) -> IntNet:
    """The integer network of a frozen model, checked against the target that it was quantized for.

    The example becomes the embedded test vector (its first two samples).

    Raises:
        NotFrozen: some layer is real, or can still move.
        Unsupported: a part of the graph has no integer node, or the target cannot do the network.
    """
    net = integer_network(model, example_input, metadata=metadata)
    require(net)
    return net


def integer_network(
    model: nn.Module, example_input: Tensor, *, metadata: Mapping[str, Any] | None = None, vectors: bool = True
) -> IntNet:
    """`lower` without the check of the target, and if so asked without test vectors."""
    was_training = model.training
    model.eval()
    try:
        for path, module in model.named_modules():
            _check_ready(path, module)
        graph = capture(model, example_input)
        work = _Lowering(model, structure(graph, model, example_input))
        for node in graph.nodes:
            _lower_node(work, node)
        decoder = _decoder(work)
    finally:
        model.train(was_training)
    net = IntNet(
        nodes=tuple(work.nodes), decoder=decoder, steps=graph.steps, target=work.target, metadata=dict(metadata or {})
    )
    prove_network(net)
    return _with_vectors(net, model, graph, example_input) if vectors else net


def _check_ready(path: str, module: nn.Module) -> None:
    if isinstance(module, Neuron) or type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d):
        raise NotFrozen(
            f"{path}: a real {type(module).__name__}; the plan must quantize every layer before the model is lowered"
        )
    if isinstance(module, (Synapse, QuantizedNeuron)) and not module.is_frozen:
        raise NotFrozen(f"{path}: still trains; call spikequant.freeze(model) before lower")


def _lower_node(work: _Lowering, node: GraphNode) -> None:
    module = module_of(node, work.model)
    is_current = work.found.flows[node.name].domain == "current"
    if node.kind == "input":
        work.nodes.append(_input(work, node))
    elif isinstance(module, ENCODERS):
        work.nodes[0] = InputNode(name="input", shape=node.shape, format=IntFormat(bits=1, signed=False), static=False)
        work.aliases[node.name] = Edge("input")
    elif isinstance(module, Synapse):
        _lower_synapse(work, node, module)
    elif isinstance(module, QuantizedNeuron):
        work.nodes.append(_neuron(work, node, module))
    elif (
        node.kind == "state"
        or isinstance(module, (*DROPOUTS, *NORMALIZING, Normalize))
        or (is_current and node.kind == "add")
    ):
        work.aliases[node.name] = Edge(node.inputs[0].source, node.inputs[0].delay)
    elif node.kind == "reshape" or isinstance(module, nn.Flatten):
        work.nodes.append(ReshapeNode(name=node.name, shape=node.shape, inputs=work.edges(node)))
    elif node.kind in JOIN_KINDS:
        work.nodes.append(_join(work, node))
    else:
        pooling = functional_pool(node) if module is None else pool_options(node, module, work.graph)
        if pooling.kind == "repeat":
            _repeat(work, node)
            return
        work.nodes.append(
            PoolNode(name=node.name, shape=node.shape, inputs=work.edges(node), kind=pooling.kind,
                     kernel=pooling.kernel, stride=pooling.stride, padding=pooling.padding)
        )  # fmt: skip


def _repeat(work: _Lowering, node: GraphNode) -> None:
    """One pixel becomes many: concatenations of the same value, one per spatial axis."""
    edge, shape = work.edges(node)[0], [node.shape[0], *([1] * (len(node.shape) - 1))]
    axes = [axis for axis in range(1, len(node.shape)) if node.shape[axis] > 1]
    for axis in axes:
        shape[axis] = node.shape[axis]
        name = node.name if axis == axes[-1] else f"{node.name}.{axis}"
        copies = (edge,) * node.shape[axis]
        work.nodes.append(
            JoinNode(name=name, shape=tuple(shape), inputs=copies, kind="concat", gains=(1,) * len(copies), axis=axis)
        )
        edge = Edge(name)
    if not axes:
        work.aliases[node.name] = edge


def _passes(node: GraphNode, is_current: bool) -> bool:
    """Whether a node has no integers of its own: a sum of currents (the neuron adds), a state of a neuron."""
    return node.kind == "state" or (is_current and node.kind == "add")


def _input(work: _Lowering, node: GraphNode) -> InputNode:
    flow = work.found.flows[node.name]
    static = work.graph.input_layout == "static"
    if flow.domain == "spikes":
        bits = max(1, flow.bound.bit_length())
        return InputNode(name=node.name, shape=node.shape, format=IntFormat(bits=bits, signed=False), static=static)
    encoders = [m for m in work.model.modules() if isinstance(m, Synapse) and m.input_scale is not None]
    if not encoders:
        if any(isinstance(m, ENCODERS) for m in work.model.modules()):
            return InputNode(name=node.name, shape=node.shape, format=IntFormat(bits=1, signed=False), static=static)
        raise Unsupported(
            "the example input is real, but no layer quantizes it; quantize the model with a real example"
        )
    first = encoders[0]
    assert first.input_scale is not None and first.input_format is not None
    if any(float(e.input_scale) != float(first.input_scale) for e in encoders if e.input_scale is not None):
        raise Unsupported("several layers read the input with different scales; give them the same input limit")
    return InputNode(
        name=node.name, shape=node.shape, format=first.input_format, static=static, scale=float(first.input_scale)
    )


def _sign(module: Synapse) -> Tensor | None:
    """Sign of the gamma that scales a layer's sums: it goes into the codes (rule 8)."""
    norm = module.link.branch.norm if module.link is not None else None
    return None if norm is None else norm.sign()


def _array(tensor: Tensor) -> IntArray:
    return tensor.detach().to(torch.int64).numpy(force=True).copy()


def _lower_synapse(work: _Lowering, node: GraphNode, module: Synapse) -> None:
    codes, sign = module.integer_codes(), _sign(module)
    fmt = module.quantizer.code_format
    if sign is not None:
        codes = codes * sign.to(torch.int64).reshape(-1, *([1] * (codes.dim() - 1)))
        if int(codes.max()) > fmt.max:  # -(lowest) of a two's complement format
            fmt = IntFormat(bits=fmt.bits + 1, signed=True)
    pad = module.pad_codes()
    product = Product(
        kind="linear" if module.kind == "linear" else "conv",
        codes=_array(codes),
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        pad_code=0 if pad is None else _array(pad),
    )
    scale = module.channel_scale().detach().to(torch.float64).numpy(force=True).copy()
    book = module.codebook()
    work.nodes.append(
        SynapseNode(name=node.name, shape=node.shape, inputs=work.edges(node), product=product, format=fmt,
                    bits=module.quantizer.bits, scale=scale, codebook=None if book is None else _array(book))
    )  # fmt: skip
    if work.graph.output.source == node.name:
        _add_readout(work, node, module)


def _add_readout(work: _Lowering, node: GraphNode, module: Synapse) -> None:
    """A last layer without a neuron: an exact integrator, or a register that holds one step."""
    sums = work.graph.output.reduction in ("sum", "mean")
    register = StateFormat(format=IntFormat(bits=READOUT_BITS))
    params = {"v_load": np.array(1, dtype=np.int64), "v_shift": np.array(0, dtype=np.int64)}
    spec = NeuronSpec(order=("integrate",), output="state", v=register, fraction_bits=module.readout_bits)
    if not sums:
        spec = spec.replace(order=("leak", "integrate"), leak=Leak(form="multiply", bits=0))
        params["leak"] = np.array(0, dtype=np.int64)
    bias = module.readout_bias()
    if bias is not None:
        params["bias"] = _array(bias)
    gain = np.array(2**module.readout_bits, dtype=np.int64)
    name = f"{node.name}.readout"
    work.nodes.append(
        NeuronNode(name=name, shape=node.shape, inputs=(Edge(node.name),), gains=(gain,), spec=spec, params=params,
                   scale=_readout_lsb(module))
    )  # fmt: skip


def _readout_lsb(module: Synapse) -> float:
    return float(module.readout_lsb().detach()[0])


def _neuron(work: _Lowering, node: GraphNode, module: QuantizedNeuron) -> NeuronNode:
    found = module.frozen_integers()
    axes = len(node.shape)

    def shaped(tensor: Tensor) -> IntArray:
        array = _array(tensor)
        return (
            array.reshape(-1, *([1] * (axes - 1))) if array.ndim == 1 and axes > 1 and not module.last_axis else array
        )

    paths: tuple[Path, ...] = work.found.paths[node.name]
    gains = tuple(np.abs(shaped(gain)) for gain in found.gains)
    return NeuronNode(
        name=node.name,
        shape=node.shape,
        inputs=tuple(work.edge(path.last, path.delay) for path in paths),
        gains=gains,
        spec=found.spec,
        params={name: shaped(value) for name, value in found.params.items()},
        seed=module.seed,
        scale=found.lsb.detach().numpy(force=True).copy(),
    )


def _join(work: _Lowering, node: GraphNode) -> JoinNode:
    flows = [work.found.flows[e.source] for e in node.inputs]
    unit = work.found.flows[node.name].unit
    gains = (1,) * len(flows) if node.kind in ("product", "iand") else tuple(int(f.unit / unit) for f in flows)
    kind: Any = JOIN_KINDS[node.kind]
    axis = node.options.get("axis", 0)
    return JoinNode(name=node.name, shape=node.shape, inputs=work.edges(node), kind=kind, gains=gains, axis=axis)


def _decoder(work: _Lowering) -> Decoder:
    output, graph = work.graph.output, work.graph
    node = graph.node(output.source)
    module = module_of(node, work.model)
    factor = output.factor / (graph.steps if output.reduction == "mean" else 1)
    names: dict[str, DecoderName]
    if isinstance(module, Synapse):
        names = {
            "sum": "membrane_last",
            "mean": "membrane_last",
            "last": "membrane_last",
            "max": "membrane_max",
            "train": "membrane_train",
        }
        return Decoder(name=names[output.reduction], source=f"{node.name}.readout", scale=factor * _readout_lsb(module))
    if node.kind == "state":
        module = work.model.get_submodule(node.path)
    if isinstance(module, QuantizedNeuron) and (node.kind == "state" or module.real_spec.output == "state"):
        names = {
            "sum": "membrane_sum",
            "mean": "membrane_sum",
            "last": "membrane_last",
            "max": "membrane_max",
            "train": "membrane_train",
        }
        gains, worth = membrane_worth(module, tuple(node.shape), node.path)
        return Decoder(name=names[output.reduction], source=node.path, gains=gains, scale=factor * worth)
    names = {"sum": "spike_count", "mean": "spike_count", "train": "spike_train"}
    if output.reduction not in names:
        raise Unsupported(
            f"the result is the {output.reduction} of spikes over time; expected their sum, mean or train"
        )
    unit = work.found.flows[output.source].unit
    source = work.edge(output.source, 0).source
    return Decoder(name=names[output.reduction], source=source, scale=factor * float(Fraction(unit)))


def _with_vectors(net: IntNet, model: nn.Module, graph: Graph, example: Tensor) -> IntNet:
    """Embed the first two samples of the example and the golden scores."""
    import dataclasses

    from spikequant.quantize.verify import network_input
    from spikequant.readers import golden

    codes = network_input(model, net, example, graph)
    codes = codes[:2] if net.input.static else codes[:, :2]
    return dataclasses.replace(
        net, vectors=TestVectors(inputs=codes, scores=golden.run(net, codes, trace=False).scores)
    )

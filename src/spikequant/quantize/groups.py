"""What flows where: the domain and unit of every value, and the neuron groups with their branches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from spikequant.capture import Graph, GraphEdge, GraphNode
from spikequant.law.errors import CaptureError, Unsupported
from spikequant.law.network import common_unit
from spikequant.nn import (
    DROPOUTS,
    ENCODERS,
    NORMS,
    POOLS,
    STATEFUL,
    SYNAPSES,
    FoldedNorm,
    NeuronLayer,
    Normalize,
    Synapse,
)
from spikequant.quantize.pooling import Pooling, functional_pool, pool_options

WEIGHTED = (*SYNAPSES, Synapse)
NORMALIZING = (*NORMS, FoldedNorm)
Domain = Literal["analog", "spikes", "current", "membrane"]


@dataclass(frozen=True)
class Flow:
    """What a value is: analog data, whole spikes in `unit`, or currents; `bound` in units."""

    domain: Domain
    unit: Fraction = Fraction(1)
    bound: int = 1


@dataclass(frozen=True)
class Path:
    """One way from a weighted layer into a neuron: names of the nodes, and the delay on the way."""

    synapse: str
    norm: str | None
    through: tuple[str, ...]
    delay: int
    pool_unit: Fraction

    @property
    def last(self) -> str:
        """The node whose integers enter the neuron."""
        return self.through[-1] if self.through else self.synapse


@dataclass(frozen=True)
class Structure:
    """The graph with meaning: flows by node, paths by neuron, readouts without a neuron."""

    graph: Graph
    flows: dict[str, Flow]
    paths: dict[str, tuple[Path, ...]]
    readouts: tuple[str, ...]


def is_whole(x: Tensor) -> bool:
    """Whether data are spikes or counts: whole numbers, none negative."""
    return bool((x >= 0).all()) and bool((x == x.to(torch.int64).to(x.dtype)).all())


def structure(graph: Graph, model: nn.Module, example_input: Tensor) -> Structure:
    """Read domains, units and groups; raises where a connection has no integer meaning."""
    flows: dict[str, Flow] = {}
    waiting = list(graph.nodes)
    for node in graph.nodes:
        flows[node.name] = _flow(node, graph, model, flows, example_input)
    for node in waiting:
        _check_delayed(node, flows)
    neurons = [n for n in graph.nodes if is_neuron(n, model)]
    paths = {n.name: tuple(_paths(n, n.inputs[0], graph, model, flows)) for n in neurons}
    readouts = tuple(n.name for n in graph.nodes if _is_readout(n, graph, model))
    _check_currents(graph, flows, model)
    return Structure(graph, flows, paths, readouts)


def module_of(node: GraphNode, model: nn.Module) -> nn.Module | None:
    """The module behind a node, if it is one."""
    return model.get_submodule(node.path) if node.kind == "module" else None


def is_neuron(node: GraphNode, model: nn.Module) -> bool:
    """Whether a node is a layer of neurons."""
    return isinstance(module_of(node, model), STATEFUL)


def gives_membrane(node: GraphNode, graph: Graph, model: nn.Module) -> bool:
    """Whether the network's output is the membrane of this neuron layer."""
    module = module_of(node, model)
    source = graph.node(graph.output.source)
    read = source.kind == "state" and source.path == node.path
    return isinstance(module, NeuronLayer) and (module.neuron_spec.output == "state" or read)


def _is_readout(node: GraphNode, graph: Graph, model: nn.Module) -> bool:
    return graph.output.source == node.name and isinstance(module_of(node, model), WEIGHTED)


def _flow(node: GraphNode, graph: Graph, model: nn.Module, flows: dict[str, Flow], example: Tensor) -> Flow:
    if node.kind == "input":
        return Flow("spikes", bound=max(1, int(example.max()))) if is_whole(example) else Flow("analog")
    sources = [flows.get(e.source, Flow("spikes")) for e in node.inputs]
    first = sources[0]
    module = module_of(node, model)
    if node.kind == "state":
        return _state_flow(node, graph)
    if module is None:
        return _operation_flow(node, sources)
    if isinstance(module, WEIGHTED):
        if first.domain == "current":
            raise Unsupported(f"{node.path}: a weighted layer on the currents of another; put a neuron between them")
        return Flow("current", bound=0)
    if isinstance(module, NeuronLayer):
        spec = module.neuron_spec
        if spec.output == "state" and graph.consumers(node.name):
            raise Unsupported(
                f"{node.path}: a neuron whose membrane leaves it can only be the last layer of the network"
            )
        return Flow("spikes", Fraction(module.spike_unit), spec.spikes_max)
    if isinstance(module, NORMALIZING):
        return _norm_flow(node, first, graph, model)
    if isinstance(module, ENCODERS):
        return Flow("spikes")
    if isinstance(module, Normalize):
        if node.inputs[0].source != "input":
            raise Unsupported(f"{node.path}: Normalize folds only as the first layer of the network")
        return Flow("analog")
    if isinstance(module, (*DROPOUTS, nn.Flatten)):
        return first
    return _pool_flow(node, first, pool_options(node, module, graph))


def _state_flow(node: GraphNode, graph: Graph) -> Flow:
    if graph.consumers(node.name):
        readers = ", ".join(n.name for n in graph.consumers(node.name))
        raise Unsupported(
            f"{node.path}: its state {node.options['state']!r} is read by {readers} inside the network; "
            "a state can only be the network's output"
        )
    if graph.output.source == node.name and node.options["state"] != "v":
        raise Unsupported(f"{node.path}: the output is its synaptic current; expected its spikes or its membrane")
    return Flow("membrane")


def _norm_flow(node: GraphNode, first: Flow, graph: Graph, model: nn.Module) -> Flow:
    if first.domain != "current":
        raise Unsupported(
            f"{node.path}: batch norm on {first.domain} cannot fold into thresholds; "
            "expected a weighted layer in front of it"
        )
    return first


def _operation_flow(node: GraphNode, sources: list[Flow]) -> Flow:
    first = sources[0]
    domains = {s.domain for s in sources}
    if len(domains) > 1:
        raise Unsupported(
            f"{node.site}: {node.kind} joins {' and '.join(sorted(domains))}; expected one kind of value: put a "
            "weighted layer on the spikes where they meet currents, a neuron on the currents where they meet spikes"
        )
    if node.kind == "reshape":
        return first
    if node.kind == "pool":
        return _pool_flow(node, first, functional_pool(node))
    if first.domain == "analog" or (first.domain == "current" and node.kind != "add"):
        raise Unsupported(f"{node.site}: {node.kind} of {first.domain} values has no integer meaning here")
    if node.kind in ("product", "iand"):
        return Flow(
            "spikes", math.prod((s.unit for s in sources), start=Fraction(1)), math.prod(s.bound for s in sources)
        )
    unit = common_unit([s.unit for s in sources])
    bounds = [int(s.bound * s.unit / unit) for s in sources]
    return Flow(first.domain, unit, sum(bounds) if node.kind == "add" else max(bounds))


def _pool_flow(node: GraphNode, first: Flow, pooling: Pooling) -> Flow:
    if first.domain == "analog":
        raise Unsupported(f"{node.site}: pooling of the analog input; pool the data, or put it behind the first layer")
    if pooling.kind != "sum":
        return first
    return Flow(first.domain, first.unit / pooling.divisor, first.bound * pooling.window)


def _paths(
    neuron: GraphNode,
    edge: GraphEdge,
    graph: Graph,
    model: nn.Module,
    flows: dict[str, Flow],
    after: tuple[str, ...] = (),
) -> Iterator[Path]:
    """Walk back from a neuron to the weighted layers that feed it."""
    node = graph.node(edge.source)
    module = module_of(node, model)
    if flows[node.name].domain != "current":
        raise Unsupported(
            f"{neuron.path}: fed by {flows[node.name].domain} of {node.name} without weights between; "
            "put a weighted layer in front of the neuron"
        )
    if isinstance(module, WEIGHTED):
        yield _path(node, graph, model, after, edge.delay)
        return
    passes = node.kind == "add" or isinstance(module, (*NORMALIZING, *DROPOUTS)) or _is_pool(node, module)
    if not passes:
        raise Unsupported(
            f"{neuron.path}: {node.kind} {node.name} between a weighted layer and its neuron is not understood"
        )
    if node.kind == "add" and len(after) > 0:
        raise Unsupported(
            f"{node.site}: currents are added and then changed by {after[0]}; put the sum right before the neuron"
        )
    through = after if node.kind == "add" or isinstance(module, DROPOUTS) else (node.name, *after)
    for source in node.inputs:
        for path in _paths(neuron, source, graph, model, flows, through):
            yield Path(path.synapse, path.norm, path.through, path.delay + edge.delay, path.pool_unit)


def _is_pool(node: GraphNode, module: nn.Module | None) -> bool:
    return node.kind == "pool" or isinstance(module, POOLS)


def _path(node: GraphNode, graph: Graph, model: nn.Module, after: tuple[str, ...], delay: int) -> Path:
    norm: str | None = None
    pools: list[str] = []
    behind_maximum = False
    unit = Fraction(1)
    for name in after:
        other = graph.node(name)
        module = module_of(other, model)
        if isinstance(module, NORMALIZING):
            if norm is not None:
                raise Unsupported(f"{other.path}: a second batch norm on the way to one neuron; merge them")
            norm = name
            if behind_maximum:
                _check_norm_after_max(other, module)
        else:
            pooling = functional_pool(other) if module is None else pool_options(other, module, graph)
            unit = unit / pooling.divisor if pooling.kind == "sum" else unit
            if pooling.kind == "sum" and pooling.divisor != pooling.window:
                _check_sum_of_bias(other, node, norm, graph, model)
            behind_maximum = behind_maximum or pooling.kind == "max"
            if pooling.kind == "sum" and any(pooling.padding):
                _check_padded_average(other, node, norm, graph, model)
            pools.append(name)
    return Path(node.name, norm, tuple(pools), delay, unit)


def _check_sum_of_bias(pool: GraphNode, layer: GraphNode, norm: str | None, graph: Graph, model: nn.Module) -> None:
    """A sum over a window holds a layer's bias many times, but a neuron adds it once."""
    source = module_of(graph.node(layer.inputs[0].source), model)
    if norm is not None or isinstance(source, Normalize) or getattr(module_of(layer, model), "bias", None) is not None:
        raise Unsupported(
            f"{pool.name}: a pooling that sums (divisor_override) behind the bias or batch norm of {layer.path} does "
            "not fold; use the average, a layer with bias=False, or pool the spikes behind the neuron"
        )


def _check_padded_average(pool: GraphNode, layer: GraphNode, norm: str | None, graph: Graph, model: nn.Module) -> None:
    """At a padded border only a part of the window carries the layer's bias, but a neuron adds all of it."""
    source = module_of(graph.node(layer.inputs[0].source), model)
    if norm is not None:
        raise Unsupported(f"{pool.name}: average pooling with padding behind batch norm does not fold")
    if isinstance(source, Normalize) or getattr(module_of(layer, model), "bias", None) is not None:
        raise Unsupported(
            f"{pool.name}: average pooling with padding behind the bias of {layer.path} does not fold; "
            "use padding=0, a layer with bias=False, or pool the spikes behind the neuron"
        )


def _check_norm_after_max(node: GraphNode, norm: nn.Module) -> None:
    gamma = getattr(norm, "weight", None)
    if gamma is not None and bool((gamma < 0).any()):
        raise Unsupported(
            f"{node.path}: batch norm with a negative gamma behind a maximum does not fold; put it in front"
        )


def _check_delayed(node: GraphNode, flows: dict[str, Flow]) -> None:
    for edge in node.inputs:
        if edge.source not in flows:
            raise CaptureError(f"{node.name}: reads {edge.source}, which is not in the graph")


def _check_currents(graph: Graph, flows: dict[str, Flow], model: nn.Module) -> None:
    for node in graph.nodes:
        if flows[node.name].domain == "current" and len(graph.consumers(node.name)) > 1:
            readers = ", ".join(n.name for n in graph.consumers(node.name))
            raise Unsupported(f"{node.name}: its currents go to several places ({readers}); give each its own layer")
        if (
            graph.output.source == node.name
            and flows[node.name].domain == "current"
            and not _is_readout(node, graph, model)
        ):
            raise Unsupported(
                f"{node.name}: the output is a current behind {node.kind}; end with a weighted layer or a neuron"
            )

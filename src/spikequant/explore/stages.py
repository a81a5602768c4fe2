"""A network as stages in a row: what a candidate sets in one of them moves nothing in those before it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikequant.analyse.counting import Calls
from spikequant.capture import Graph, GraphNode, LayerwiseRunner
from spikequant.law.errors import Unsupported
from spikequant.nn import ENCODERS, NORMS, STATEFUL, SYNAPSES, Normalize
from spikequant.nn.reset import reset_states
from spikequant.plan import SYNAPSE_ROLES, LayerPlan, Plan
from spikequant.quantize.groups import Structure, module_of


@dataclass(frozen=True)
class Stage:
    """A neuron layer with the synapses and batch norms that meet in it, or a last layer without a neuron.

    Attributes:
        end: path of the neuron, or of the last layer.
        synapses: paths of the weighted layers.
        modules: paths of everything that quantization exchanges here.
        nodes: what runs here, in order, the joins and pools before it included.
        exports: names of the nodes that a later stage reads, or the result.
        has_neuron: False for a last layer without a neuron.
    """

    end: str
    synapses: tuple[str, ...]
    modules: tuple[str, ...]
    nodes: tuple[GraphNode, ...]
    exports: tuple[str, ...]
    has_neuron: bool

    def key(self, plan: Plan) -> str:
        """Everything of a plan that this stage depends on."""
        return json.dumps([_plain(plan.layer(path)) for path in self.modules] + [plan.fraction_bits, plan.seed])

    def weight_key(self, plan: Plan) -> str:
        """The part of it that its integer sums depend on: what its synapses are, and not its neuron."""
        roles = [_plain(plan.layer(path), SYNAPSE_ROLES) for path in self.synapses]
        asked = any(any(role.values()) for role in roles)
        alone = [] if asked else [self.key(plan)]  # real unless its neuron is asked for
        return json.dumps([roles, alone])


def _plain(layer: LayerPlan, roles: tuple[str, ...] | None = None) -> dict[str, object]:
    return layer.model_dump(mode="json", exclude={"match"}, include=None if roles is None else set(roles))


def stages(found: Structure, model: nn.Module) -> tuple[Stage, ...]:
    """The stages of a network in the order in which `calibrate` settles its layers.

    Raises:
        Unsupported: the network has loops, layers that are settled before those that feed them or are called in two
            places, or an encoder that draws.
    """
    graph = found.graph
    paths = [node.path for node in graph.nodes if node.kind == "module"]
    if len(set(paths)) < len(paths) or any(isinstance(module_of(n, model), ENCODERS) for n in graph.nodes):
        raise Unsupported("a layer is called in two places, or an encoder draws spikes: nothing is shared")
    row = LayerwiseRunner(model, graph).groups
    if any(len(group) > 1 or any(e.source == group[0].name for e in group[0].inputs) for group in row):
        raise Unsupported("the network has recurrent connections: its layers do not stand in a row")
    nodes = [group[0] for group in row]
    order = {path: place for place, (path, _) in enumerate(model.named_modules())}
    ends = sorted(found.paths, key=lambda name: order[graph.node(name).path]) + list(found.readouts)
    owner: dict[str, int] = {}
    for number, end in enumerate(ends):
        owner[end] = number
        for path in found.paths.get(end, ()):
            owner.update({name: number for name in (path.synapse, path.norm, *path.through) if name is not None})
    for node in reversed(nodes):
        readers = [owner[n.name] for n in graph.consumers(node.name)]
        if node.name not in owner:
            owner[node.name] = min(readers, default=len(ends) - 1)
    _check_order(nodes, owner, graph)
    return tuple(_stage(number, end, nodes, owner, found, model) for number, end in enumerate(ends))


def _check_order(nodes: list[GraphNode], owner: Mapping[str, int], graph: Graph) -> None:
    for node in nodes:
        for edge in node.inputs:
            if owner[edge.source] > owner[node.name] and graph.node(edge.source).kind != "input":
                raise Unsupported(
                    f"{node.name} is settled before {edge.source}, which it reads: give the layers of the model the "
                    "order in which they run"
                )


def _stage(
    number: int, end: str, nodes: list[GraphNode], owner: Mapping[str, int], found: Structure, model: nn.Module
) -> Stage:
    graph = found.graph
    mine = [n for n in nodes if owner[n.name] == number and n.kind != "input"]
    exports = [
        n.name
        for n in mine
        if n.name == graph.output.source or any(owner[r.name] != number for r in graph.consumers(n.name))
    ]
    weighted = [n.path for n in mine if isinstance(module_of(n, model), SYNAPSES)]
    exchanged = [n.path for n in mine if isinstance(module_of(n, model), (*SYNAPSES, *NORMS, *STATEFUL, Normalize))]
    return Stage(
        end=graph.node(end).path,
        synapses=tuple(dict.fromkeys(weighted)),
        modules=tuple(dict.fromkeys(exchanged)),
        nodes=tuple(mine),
        exports=tuple(exports),
        has_neuron=end in found.paths,
    )


def summed_source(found: tuple[Stage, ...], graph: Graph, model: nn.Module) -> str | None:
    """The neuron layer of which the last stage asks only how often each neuron fired in a sample; None without one.

    So it is for a linear layer without a neuron, at most behind reshapes, whose currents are summed over time.
    """
    if len(found) < 2 or found[-1].has_neuron or graph.output.reduction not in ("sum", "mean"):
        return None
    *reshapes, last = found[-1].nodes
    source = found[-1].nodes[0].inputs[0].source
    in_a_row = [source, *(node.name for node in found[-1].nodes)]
    chained = all(
        [edge.source for edge in node.inputs] == [before] and not node.inputs[0].delay and node.per_step
        for before, node in zip(in_a_row, found[-1].nodes, strict=False)
    )
    linear = last.kind == "module" and isinstance(module_of(last, model), nn.Linear) and len(found[-1].modules) == 1
    before = found[-2]
    alone = before.exports == (source,) and before.nodes[-1].name == source and before.nodes[-1].path == before.end
    plain = chained and linear and alone and all(node.kind == "reshape" for node in reshapes)
    flat = len(graph.node(last.inputs[0].source).shape) == 1 and graph.output.source == last.name
    return source if plain and flat and graph.output.factor > 0 else None


@torch.no_grad()
def calls_of(model: nn.Module, graph: Graph, example: Tensor) -> tuple[Calls, dict[str, int], dict[str, int]]:
    """How the model's own forward pass calls its layers: for the counts of operations, and how often by path.

    Last, how often one call holds a value that does not change over time, by path: ``fc(x.expand(T, ...))`` holds it
    T times, ``fc(x)`` once.

    Raises:
        Unsupported: weighted layers are called another number of times than once, or once per step.
    """
    calls, times = Calls(), dict.fromkeys(graph.modules(model), 0)
    nodes = {node.path: node for node in graph.nodes if node.kind == "module"}
    shown = dict.fromkeys(times, 1)

    def count(path: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        times[path] += 1
        if not nodes[path].per_step and given:
            features = graph.node(nodes[path].inputs[0].source).shape
            shown[path] = given[0].numel() // (len(example) * math.prod(features))
        if isinstance(module, SYNAPSES):
            calls.count(path)

    handles = [
        module.register_forward_pre_hook(lambda m, given, path=path: count(path, m, given))
        for path, module in graph.modules(model).items()
    ]
    try:
        with calls.recorded():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
        reset_states(model)
    if not calls.fits(graph):
        raise Unsupported("a layer is called another number of times than once, or once per step")
    calls.layerwise(any(getattr(module, "step_mode", "m") == "s" for module in model.modules()))
    return calls, times, shown

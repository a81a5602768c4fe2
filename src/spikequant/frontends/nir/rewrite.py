"""Bring a flat graph into the form of layers: a neuron is fed by weights, and a Scale lies in weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from spikequant.frontends.nir.dynamics import Choices, delay_steps, step_values
from spikequant.frontends.nir.graph import FlatEdge, FlatGraph
from spikequant.law.errors import Unsupported
from spikequant.readers.nir_.records import INTEGRATORS, NEURONS, WEIGHTED, NirNode

DIAGONAL = (*WEIGHTED, "Scale")


def resolve_delays(flat: FlatGraph, choices: Choices) -> None:
    """Delays in whole steps; one of no step goes."""
    for name in [n for n, node in flat.nodes.items() if node.kind == "Delay"]:
        assert choices.dt is not None
        steps = delay_steps(name, flat.nodes[name].fields["delay"], choices.dt)
        flat.nodes[name] = NirNode(kind="Delay", fields={"steps": steps})
        if steps == 0:
            _bypass(flat, name)
            flat.notes.append(f"{name}: a delay of no step, left out")


def pass_inner_ports(flat: FlatGraph) -> None:
    """Inputs and Outputs of subgraphs go; their edges join."""
    for name in sorted(flat.inner & set(flat.nodes)):
        _bypass(flat, name)


def _bypass(flat: FlatGraph, name: str) -> None:
    """Take a node away and join its edges."""
    before, after = flat.into(name), flat.out_of(name)
    joined = [FlatEdge(a.source, b.target) for a in before for b in after if name not in (a.source, b.target)]
    if len(joined) != len(set(joined)) or set(joined) & set(flat.edges):
        raise Unsupported(
            f"{name}: two ways from one node to another meet without a layer between; merge them in the graph"
        )
    flat.edges = [e for e in flat.edges if name not in (e.source, e.target)] + joined
    del flat.nodes[name]
    flat.shapes.pop(name, None)


def _free_name(flat: FlatGraph, base: str) -> str:
    name, count = base, 1
    while name in flat.nodes:
        count += 1
        name = f"{base}_{count}"
    return name


def _insert(flat: FlatGraph, edge: FlatEdge, base: str, scale: Any) -> None:
    """A Scale in the middle of an edge."""
    name = _free_name(flat, base)
    flat.nodes[name] = NirNode(kind="Scale", fields={"scale": scale})
    flat.shapes[name] = flat.shapes[edge.source]
    k = flat.edges.index(edge)
    flat.edges[k : k + 1] = [FlatEdge(edge.source, name), FlatEdge(name, edge.target)]


def gains_into_scales(flat: FlatGraph, choices: Choices) -> set[str]:
    """Input gains that no neuron of the law can hold (not positive; several in a readout) become Scales in front.

    Gives the neurons whose gain is outside now.
    """
    outside: set[str] = set()
    for name in [n for n, node in flat.nodes.items() if node.kind in NEURONS]:
        node = flat.nodes[name]
        gain = step_values(name, node, choices)["gain"]
        uneven = node.kind in INTEGRATORS and bool((gain != gain.flat[0]).any())
        if uneven or bool((gain <= 0).any()):
            outside.add(name)
            for edge in flat.into(name):
                _insert(flat, edge, f"{name}_gain", gain)
            why = "a readout has one scale" if uneven else "a gain of the law is positive"
            flat.notes.append(f"{name}: its input gain lies in the weights in front of it, because {why}")
    return outside


def fold_scales(flat: FlatGraph) -> None:
    """Put every Scale into the weights before or behind it, where these serve nothing else."""
    for name in [n for n, node in flat.nodes.items() if node.kind == "Scale"]:
        before = flat.into(name)
        if len(before) > 1:
            for edge in before:
                flat.edges.remove(edge)
                copy = _free_name(flat, name)
                flat.nodes[copy], flat.shapes[copy] = flat.nodes[name], flat.shapes[name]
                flat.edges += [FlatEdge(edge.source, copy), *(FlatEdge(copy, e.target) for e in flat.out_of(name))]
            flat.edges = [e for e in flat.edges if e.source != name]
            del flat.nodes[name], flat.shapes[name]
    folding = True
    while folding:
        folding = any(_fold_one(flat, name) for name in [n for n, v in flat.nodes.items() if v.kind == "Scale"])


def _fold_one(flat: FlatGraph, name: str) -> bool:
    source, after = flat.into(name)[0].source, flat.out_of(name)
    scale, kind = flat.nodes[name].fields["scale"], flat.kind(source)
    if kind in DIAGONAL and len(flat.out_of(source)) == 1:
        rows = _per_row(name, scale, flat.shapes[name], flat.nodes[source])
        flat.nodes[source] = _scaled(flat.nodes[source], rows, outputs=True)
        partner = source
    elif after and all(flat.kind(e.target) in WEIGHTED and len(flat.into(e.target)) == 1 for e in after):
        for edge in after:
            columns = _per_row(name, scale, flat.shapes[name], flat.nodes[edge.target])
            flat.nodes[edge.target] = _scaled(flat.nodes[edge.target], columns, outputs=False)
        partner = ", ".join(edge.target for edge in after)
    else:
        return False
    _bypass(flat, name)
    flat.notes.append(f"{name}: lies in the weights of {partner}")
    return True


def _per_row(name: str, scale: Any, shape: tuple[int, ...], partner: NirNode) -> Any:
    """One factor for each row (output) or column (input) of a weight."""
    full = np.broadcast_to(scale.reshape(-1) if scale.size == 1 else scale.reshape(shape), shape)
    if partner.kind == "Scale":
        return full
    channels = full.reshape(shape[0], -1)
    if bool((channels != channels[:, :1]).any()):
        raise Unsupported(
            f"{name}.scale: differs within a channel of {shape}, and a convolution has one weight for all its pixels; "
            "give every channel one factor"
        )
    return channels[:, 0]


def _scaled(node: NirNode, factors: Any, *, outputs: bool) -> NirNode:
    fields = dict(node.fields)
    if node.kind == "Scale":
        return replace(node, fields={"scale": fields["scale"] * factors})
    weight = np.asarray(fields["weight"], dtype=np.float64)
    if outputs:
        fields["weight"] = weight * factors.reshape(-1, *([1] * (weight.ndim - 1)))
        if fields.get("bias") is not None:
            fields["bias"] = fields["bias"].reshape(-1) * factors
    else:
        groups = fields.get("groups", 1)
        per_group = factors.reshape(groups, -1).repeat(weight.shape[0] // groups, axis=0)
        fields["weight"] = weight * per_group.reshape(*per_group.shape, *([1] * (weight.ndim - 2)))
    return replace(node, fields=fields)


def feed_neurons_by_weights(flat: FlatGraph) -> None:
    """Weights of 1 between spikes (or data) and a neuron that they reach without any."""
    carries = _currents(flat)
    for edge in list(flat.edges):
        kind = flat.kind(edge.target)
        mixed = len({e.source in carries for e in flat.into(edge.target)}) > 1
        passes = kind not in (*NEURONS, *DIAGONAL, "Output")
        if edge.source not in carries and (kind in NEURONS or (passes and mixed)):
            _insert(flat, edge, f"{edge.target}_in", np.ones(()))
            flat.notes.append(f"{edge.target}: gets {edge.source} without weights; a layer of ones stands between them")


def _currents(flat: FlatGraph) -> set[str]:
    """Nodes whose value comes from weights with no neuron since."""
    found = {name for name, node in flat.nodes.items() if node.kind in DIAGONAL}
    passes = {name for name, node in flat.nodes.items() if node.kind not in (*DIAGONAL, *NEURONS, "Input")}
    grown = True
    while grown:
        new = {e.target for e in flat.edges if e.source in found and e.target in passes} - found
        found |= new
        grown = bool(new)
    return found

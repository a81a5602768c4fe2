"""Synaptic operations of one stage on one batch; the events of its inputs are counted once for all siblings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from spikequant.analyse.counting import counter_of, events_of
from spikequant.analyse.probe import emits_spikes
from spikequant.capture import GraphNode
from spikequant.measure import SynOpsCount
from spikequant.nn import NeuronLayer

if TYPE_CHECKING:
    from spikequant.explore.stage_run import Events, Frame, StageRun


def operations(run: StageRun, frame: Frame, values: dict[str, Tensor]) -> dict[str, SynOpsCount]:
    """Operations of the layers of a frame's stage, whose values are given."""
    assert frame.parent is not None
    found: dict[str, SynOpsCount] = {}
    run.calls.samples = frame.samples
    stage = run.stage(frame.node)
    for node in (node for node in stage.nodes if node.path in stage.synapses):
        module = frame.node.modules[node.path]
        key = f"{node.name} {getattr(module, 'input_scale', None)}"
        if key not in frame.parent.events:
            frame.parent.events[key] = _counted_events(run, frame, node) or _events(run, frame, node, values)
        events, spiking, shape, repeats = frame.parent.events[key]
        counter = frame.node.counters.get(node.path)
        if counter is None:
            counter = frame.node.counters[node.path] = counter_of(node.path, module, shape[1:])
        before = counter.count()
        counter.add(events, spiking, samples=shape[0], repeats=repeats)
        found[node.path] = _since(before, counter.count())
    return found


def _events(run: StageRun, frame: Frame, node: GraphNode, values: dict[str, Tensor]) -> Events:
    """Events of what a layer is given."""
    given = run.given_to(frame, node, values)
    merged = given.flatten(0, 1) if node.per_step else given
    rows, repeats = run.calls.steps_of(node.path, frame.node.modules[node.path], merged)
    return (*events_of(rows), tuple(rows.shape[1:]), repeats * run.network.shown[node.path])


def _counted_events(run: StageRun, frame: Frame, node: GraphNode) -> Events | None:
    """The same where that is the spikes of one layer, which were counted: all steps as one call, as all are spikes."""
    counts = _counted(run, frame, node)
    if counts is None:
        return None
    features = run.network.graph.node(node.inputs[0].source).shape
    rows = run.network.graph.steps * frame.samples
    return counts.astype(np.int64).reshape(1, *features), np.ones(1, dtype=np.bool_), (rows, *features), 1


def _counted(run: StageRun, frame: Frame, node: GraphNode) -> np.ndarray | None:
    """Spikes of the layer whose spikes of 0 and 1 a node is given, perhaps in another shape; None if it is not so."""
    edge, graph = node.inputs[0], run.network.graph
    while edge.delay == 0 and graph.node(edge.source).kind == "reshape":
        edge = graph.node(edge.source).inputs[0]
    source, at = graph.node(edge.source), frame.parent
    while at is not None and source.path not in at.counts:
        at = at.parent
    if at is None or edge.delay or not node.per_step or source.kind != "module":
        return None
    module = at.node.modules[source.path]
    if not isinstance(module, NeuronLayer) or module.neuron_spec.spikes_max != 1 or module.spike_unit != 1.0:
        return None
    return at.counts[source.path] if emits_spikes(module) else None


def _since(before: SynOpsCount, now: SynOpsCount) -> SynOpsCount:
    return SynOpsCount(
        now.effective_macs - before.effective_macs, now.effective_acs - before.effective_acs, now.dense - before.dense
    )

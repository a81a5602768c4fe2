"""From folded calls to a graph: the walk over the calls, and the reading of the output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from spikequant.capture.fold import INPUT, Call, Folded, Operand
from spikequant.capture.graph import Graph, GraphEdge, GraphNode, NodeKind, Output
from spikequant.capture.layouts import DIVIDES, MULTIPLIES, READS, Layout, Val
from spikequant.capture.operations import operation, reshape
from spikequant.law.errors import CaptureError
from spikequant.nn import DROPOUTS, ENCODERS, STATEFUL, Delay, FoldedNorm, Synapse


class Builder:
    """Walks the folded calls once; raises with the line of what it cannot read."""

    def __init__(self, folded: Folded, modules: dict[str, nn.Module], input_layout: Layout) -> None:
        self.folded, self.modules, self.steps = folded, modules, folded.steps
        self.nodes: list[GraphNode] = []
        self.vals: dict[str, Val] = {}
        self.names: dict[str, int] = {}
        self.batch = self._start(input_layout)

    def _start(self, layout: Layout) -> int:
        shape = self.folded.input_shape
        leading = {"static": 1, "step": 1, "batch_merged": 1, "time": 2, "batch_time": 2}[layout]
        if len(shape) <= leading or (layout == "time" and shape[0] != self.steps and not self._sliced()):
            raise CaptureError(f"the input {shape} is not in the layout {layout} of {self.steps} steps")
        if layout == "batch_time" and shape[1] != self.steps:
            raise CaptureError(f"the input {shape} has not {self.steps} steps on its second axis")
        if layout == "batch_merged" and shape[0] % self.steps:
            raise CaptureError(f"the input {shape} is no whole number of samples of {self.steps} steps")
        features = shape[leading:]
        self.vals[INPUT] = Val(INPUT, layout, features)
        per_step = layout != "static"
        self.nodes.append(GraphNode(name=INPUT, kind="input", inputs=(), shape=features, per_step=per_step))
        return {"time": shape[1], "batch_merged": shape[0] // self.steps}.get(layout, shape[0])

    def _sliced(self) -> bool:
        return any(c.event.name == "__getitem__" and c.per_step for c in self.folded.calls.values())

    # -- the walk ----------------------------------------------------------------------

    def graph(self) -> Graph:
        """Every call in turn, then the nodes with all edges resolved."""
        for key, call in self.folded.calls.items():
            meaning = {"module": self.module, "state": self.stored_state}.get(call.event.kind)
            self.vals[key] = operation(self, call) if meaning is None else meaning(call)
        layouts = {"time": "time_first", "batch_time": "batch_first"}
        layout = layouts.get(self.vals[INPUT].layout, self.vals[INPUT].layout)
        return Graph(
            nodes=tuple(self._resolved(node) for node in self.nodes),
            output=self.output(),
            steps=self.steps,
            input_layout=layout,  # type: ignore[arg-type]
        )

    def _resolved(self, node: GraphNode) -> GraphNode:
        return replace(node, inputs=tuple(self._resolved_edge(edge) for edge in node.inputs))

    def _resolved_edge(self, edge: GraphEdge) -> GraphEdge:
        """An edge to a node for one to a place that was not known yet when it was drawn."""
        while edge.source.startswith("@"):
            val = self.vals[edge.source[1:]]
            edge = GraphEdge(val.node, edge.delay + val.delay)
        return edge

    def refuse(self, call: Call, why: str) -> CaptureError:
        """The error that names the line of a call."""
        return CaptureError(f"{call.event.site}: {call.event.name}: {why}")

    def value(self, call: Call, operand: Operand) -> tuple[Val, GraphEdge]:
        """The value of an operand and the edge that carries it."""
        assert operand.key is not None
        if operand.key not in self.vals:
            later = self.folded.calls[operand.key]
            if operand.delay < 1:
                raise self.refuse(call, f"reads {operand.key} before it is computed")
            place = f"@{operand.key}"
            return Val(place, "step", later.shape[1:], delay=operand.delay), GraphEdge(place, operand.delay)
        val = self.vals[operand.key]
        if operand.all_steps and val.layout in ("step", "static"):
            val = replace(val, layout="time")
        if operand.last_step:
            val = replace(val, layout="static", reduction="sum" if val.sums else "last", sums=False)
        elif val.sums and operand.key != call.key:
            raise self.refuse(call, "uses a running sum inside the loop; only its last value can be read")
        delay = operand.delay + val.delay
        return replace(val, delay=delay), GraphEdge(val.node, delay)

    def inputs(self, call: Call) -> list[tuple[Val, GraphEdge]]:
        """The tensor arguments."""
        found = [self.value(call, o) for o in call.operands if o.key is not None]
        name = call.event.name if call.event.kind == "op" else ""
        for val, _ in found:
            if val.reduction is not None and name not in MULTIPLIES | DIVIDES:
                raise self.refuse(
                    call, "computes on the result of the reading over time; only a constant factor is understood"
                )
            if val.factor != 1.0 and name not in READS:
                raise self.refuse(
                    call,
                    f"takes a value scaled by {val.factor} inside the network; "
                    "fold the factor into weights or thresholds",
                )
            if val.negated and name not in MULTIPLIES:
                raise self.refuse(call, "takes 1 - spikes; only their product with other spikes (IAND) is understood")
        return found

    def add_node(
        self,
        kind: NodeKind,
        base: str,
        edges: tuple[GraphEdge, ...],
        features: tuple[int, ...],
        call: Call,
        **more: Any,
    ) -> str:
        """Append a node under a free name; gives the name."""
        alive = more.pop("alive", False)
        per_step = alive or any(e.delay or e.source.startswith("@") or self._per_step(e.source) for e in edges)
        count = self.names[base] = self.names.get(base, 0) + 1
        name = base if kind == "module" or count == 1 else f"{base}_{count}"
        self.nodes.append(
            GraphNode(
                name=name, kind=kind, inputs=edges, shape=features, per_step=per_step, site=str(call.event.site), **more
            )
        )
        return name

    def _per_step(self, name: str) -> bool:
        return next(n.per_step for n in self.nodes if n.name == name)

    def lead(self, layout: Layout) -> tuple[int, ...]:
        """The axes of time and batch in front of the features."""
        n, t = self.batch, self.steps
        leads: dict[Layout, tuple[int, ...]] = {
            "static": (n,), "ones": (1, n), "batch_ones": (n, 1), "step": (n,), "time": (t, n), "merged": (t * n,),
            "batch_time": (n, t), "batch_merged": (n * t,),
        }  # fmt: skip
        return leads[layout]

    def strip(self, call: Call, layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Features of a result that kept its layout."""
        lead = self.lead(layout)
        if shape[: len(lead)] != lead:
            raise self.refuse(call, f"gives the shape {shape}, which does not begin with {lead}")
        return shape[len(lead) :]

    # -- modules -----------------------------------------------------------------------

    def module(self, call: Call) -> Val:
        """The value that a layer gives."""
        path = call.key
        found = self.inputs(call)
        if not found:
            raise self.refuse(call, "is fed by a constant; expected a recorded value")
        val, edge = found[0]
        module = self.modules[path]
        if isinstance(module, STATEFUL):
            return self.neuron(call, val, edge)
        if isinstance(module, nn.Flatten):
            return reshape(self, call, val, edge)
        if isinstance(module, Delay):
            return replace(val, delay=val.delay + module.steps)
        if isinstance(module, ENCODERS):
            features = self.strip(call, "time", call.shape)
            return Val(self.add_node("module", path, (edge,), features, call, path=path, alive=True), "time", features)
        takes_any = isinstance(module, (*DROPOUTS, Synapse, FoldedNorm))
        apart = val.layout in ("ones", "time", "batch_ones", "batch_time")
        over_time = apart and (
            isinstance(module, nn.Linear)
            or (getattr(module, "step_mode", "s") == "m" and val.layout in ("ones", "time"))
        )
        if not (takes_any or over_time or not apart):
            why = f"takes [N, ...] or [T*N, ...], got the layout {val.layout}; flatten time and batch first"
            raise self.refuse(call, why)
        layout: Layout = "step" if call.per_step and val.layout == "static" else val.layout
        features = self.strip(call, val.layout, call.shape)
        return Val(self.add_node("module", path, (edge,), features, call, path=path), layout, features)

    def neuron(self, call: Call, val: Val, edge: GraphEdge) -> Val:
        """The spikes that a layer of neurons gives."""
        path = call.key
        mode: Any = self.modules[path].step_mode
        wanted: Layout = "time" if mode == "m" else "step"
        if wanted == "step" and val.layout == "static":
            val = replace(val, layout="step")
        if val.layout == "ones" and self.steps == 1:
            val = replace(val, layout="time")
        if val.layout != wanted:
            raise self.refuse(call, f"a neuron in step_mode {mode!r} was given the layout {val.layout}")
        features = self.strip(call, wanted, call.shape)
        return Val(self.add_node("module", path, (edge,), features, call, path=path, alive=True), wanted, features)

    def stored_state(self, call: Call) -> Val:
        """A state that a neuron gives besides its spikes."""
        val, edge = self.inputs(call)[0]
        path, _, state = call.key.rpartition(":")
        node = self.add_node("state", call.key, (edge,), val.features, call, path=path, options={"state": state})
        return replace(val, node=node)

    # -- the result --------------------------------------------------------------------

    def output(self) -> Output:
        """How the result reads its source over time."""
        result = self.folded.result
        assert result.key is not None
        val = self.vals[result.key]
        if val.delay:
            raise CaptureError(f"the result is {val.node} of {val.delay} steps ago; read the value itself")
        trains = ("time", "step", "batch_time", "batch_merged")
        if result.all_steps or (val.layout in trains and not result.last_step and val.reduction is None):
            layout = {"batch_time": "batch_first", "batch_merged": "batch_merged"}.get(val.layout, "time_first")
            return Output(source=val.node, reduction="train", factor=val.factor, layout=layout)  # type: ignore[arg-type]
        if result.last_step:
            return Output(source=val.node, reduction="sum" if val.sums else "last", factor=val.factor)
        if val.reduction is None:
            raise CaptureError(
                f"the result comes from {val.node} without a reading over time; expected sum, mean, max or last step"
            )
        return Output(source=val.node, reduction=val.reduction, factor=val.factor)


def build(folded: Folded, modules: dict[str, nn.Module]) -> Graph:
    """Build the graph under the one input layout that makes sense of every call."""
    single_call = folded.looped and folded.steps == 1
    layouts: tuple[Layout, ...] = ("step",) if single_call else ("time", "batch_time", "static", "batch_merged")
    furthest, reached = CaptureError("the model cannot be read as a graph"), -1
    for layout in layouts:
        builder = None
        try:
            builder = Builder(folded, modules, layout)
            return builder.graph()
        except CaptureError as error:
            done = 0 if builder is None else len(builder.vals)
            if done > reached:
                furthest, reached = error, done
    if single_call:
        raise CaptureError(
            f"{furthest}; a model with a loop of its own needs an example of at least 2 time steps"
        ) from furthest
    raise furthest

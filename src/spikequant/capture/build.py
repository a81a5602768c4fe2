"""From folded calls to a graph: layouts of time and batch, reshapes, and the reading of the output."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from spikequant.capture.fold import INPUT, Call, Folded, Operand
from spikequant.capture.graph import Graph, GraphEdge, GraphNode, NodeKind, Output, Reduction
from spikequant.law.errors import CaptureError
from spikequant.nn import ENCODERS

Layout = Literal["static", "ones", "step", "time", "merged", "batch_time"]
GROUPS: dict[str, tuple[Layout, ...]] = {
    "static": ("static", "ones", "time"),
    "ones": ("ones", "static", "time"),
    "step": ("step",),
    "time": ("time", "merged"),
    "merged": ("merged", "time"),
    "batch_time": ("batch_time",),
}
RESHAPES = {"flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "repeat", "expand", "expand_as"}
ADDS = {"add", "add_", "__add__", "__radd__", "__iadd__"}
MULTIPLIES = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", "logical_and", "__and__"}
DIVIDES = {"div", "div_", "__truediv__", "true_divide", "divide"}
REDUCTIONS: dict[str, Reduction] = {"sum": "sum", "mean": "mean", "amax": "max", "max": "max"}
POOLS = {"max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "_max_pool2d", "_max_pool1d", "boolean_dispatch"}


@dataclass(frozen=True)
class Val:
    """A value in the user's code: which node, in which layout of time and batch, reduced or not."""

    node: str
    layout: Layout
    features: tuple[int, ...]
    reduction: Reduction | None = None
    factor: float = 1.0
    sums: bool = False
    negated: bool = False


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
        leading = {"static": 1, "step": 1, "time": 2, "batch_time": 2}[layout]
        if len(shape) <= leading or (layout == "time" and shape[0] != self.steps and not self._sliced()):
            raise CaptureError(f"the input {shape} is not in the layout {layout} of {self.steps} steps")
        if layout == "batch_time" and shape[1] != self.steps:
            raise CaptureError(f"the input {shape} has not {self.steps} steps on its second axis")
        features = shape[leading:]
        self.vals[INPUT] = Val(INPUT, layout, features)
        per_step = layout != "static"
        self.nodes.append(GraphNode(name=INPUT, kind="input", inputs=(), shape=features, per_step=per_step))
        return shape[1] if layout == "time" else shape[0]

    def _sliced(self) -> bool:
        return any(c.event.name == "__getitem__" and c.per_step for c in self.folded.calls.values())

    # -- the walk ----------------------------------------------------------------------

    def graph(self) -> Graph:
        for key, call in self.folded.calls.items():
            self.vals[key] = self.module(call) if call.event.kind == "module" else self.operation(call)
        layouts = {"static": "static", "time": "time_first", "batch_time": "batch_first", "step": "step"}
        layout = layouts[self.vals[INPUT].layout]
        return Graph(
            nodes=tuple(self._resolved(node) for node in self.nodes),
            output=self.output(),
            steps=self.steps,
            input_layout=layout,  # type: ignore[arg-type]
        )

    def _resolved(self, node: GraphNode) -> GraphNode:
        edges = tuple(
            GraphEdge(self.vals[e.source[1:]].node if e.source.startswith("@") else e.source, e.delay) for e in node.inputs
        )
        return replace(node, inputs=edges)

    def refuse(self, call: Call, why: str) -> CaptureError:
        return CaptureError(f"{call.event.site}: {call.event.name}: {why}")

    def value(self, call: Call, operand: Operand) -> tuple[Val, GraphEdge]:
        """The value of an operand and the edge that carries it."""
        assert operand.key is not None
        if operand.key not in self.vals:
            later = self.folded.calls[operand.key]
            if operand.delay < 1:
                raise self.refuse(call, f"reads {operand.key} before it is computed")
            return Val(f"@{operand.key}", "step", later.shape[1:]), GraphEdge(f"@{operand.key}", operand.delay)
        val = self.vals[operand.key]
        if operand.all_steps and val.layout in ("step", "static"):
            val = replace(val, layout="time")
        if operand.last_step:
            val = replace(val, layout="static", reduction="sum" if val.sums else "last", sums=False)
        elif val.sums and operand.key != call.key:
            raise self.refuse(call, "uses a running sum inside the loop; only its last value can be read")
        return val, GraphEdge(val.node, operand.delay)

    def inputs(self, call: Call) -> list[tuple[Val, GraphEdge]]:
        """The tensor arguments."""
        found = [self.value(call, o) for o in call.operands if o.key is not None]
        for val, _ in found:
            if val.reduction is not None and call.event.name not in MULTIPLIES | DIVIDES:
                raise self.refuse(call, "computes on the result of the reading over time; only a constant factor is understood")
        return found

    def add_node(self, kind: NodeKind, base: str, edges: tuple[GraphEdge, ...], features: tuple[int, ...], call: Call, **more: Any) -> str:
        alive = more.pop("alive", False)
        per_step = alive or any(e.delay or e.source.startswith("@") or self._per_step(e.source) for e in edges)
        count = self.names[base] = self.names.get(base, 0) + 1
        name = base if kind == "module" or count == 1 else f"{base}_{count}"
        self.nodes.append(
            GraphNode(name=name, kind=kind, inputs=edges, shape=features, per_step=per_step, site=str(call.event.site), **more)
        )
        return name

    def _per_step(self, name: str) -> bool:
        return next(n.per_step for n in self.nodes if n.name == name)

    def lead(self, layout: Layout) -> tuple[int, ...]:
        n, t = self.batch, self.steps
        return {"static": (n,), "ones": (1, n), "step": (n,), "time": (t, n), "merged": (t * n,), "batch_time": (n, t)}[layout]

    def strip(self, call: Call, layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Features of a result that kept its layout."""
        lead = self.lead(layout)
        if shape[: len(lead)] != lead:
            raise self.refuse(call, f"gives the shape {shape}, which does not begin with {lead}")
        return shape[len(lead) :]

    # -- modules -----------------------------------------------------------------------

    def module(self, call: Call) -> Val:
        path = call.key
        found = self.inputs(call)
        if not found:
            raise self.refuse(call, "is fed by a constant; expected a recorded value")
        val, edge = found[0]
        module = self.modules[path]
        if hasattr(module, "step_mode"):
            wanted: Layout = "time" if module.step_mode == "m" else "step"
            if wanted == "step" and val.layout == "static":
                val = replace(val, layout="step")
            if val.layout != wanted:
                raise self.refuse(call, f"a neuron in step_mode {module.step_mode!r} was given the layout {val.layout}")
            features = self.strip(call, wanted, call.shape)
            return Val(self.add_node("module", path, (edge,), features, call, path=path, alive=True), wanted, features)
        if isinstance(module, nn.Flatten):
            return self.reshape(call, val, edge)
        if isinstance(module, ENCODERS):
            features = self.strip(call, "time", call.shape)
            return Val(self.add_node("module", path, (edge,), features, call, path=path, alive=True), "time", features)
        if val.layout in ("ones", "batch_time") or (val.layout == "time" and not isinstance(module, nn.Linear)):
            if not type(module).__name__.startswith(("Dropout", "Identity", "Synapse")):
                raise self.refuse(call, f"takes [N, ...] or [T*N, ...], got the layout {val.layout}; flatten time and batch first")
        layout: Layout = "step" if call.per_step and val.layout == "static" else val.layout
        features = self.strip(call, val.layout, call.shape)
        return Val(self.add_node("module", path, (edge,), features, call, path=path), layout, features)

    # -- operations --------------------------------------------------------------------

    def operation(self, call: Call) -> Val:
        name = call.event.name
        if name in RESHAPES:
            val, edge = self.inputs(call)[0]
            return self.reshape(call, val, edge)
        handlers: list[tuple[set[str], Callable[[Call], Val]]] = [
            ({"transpose", "permute", "swapaxes", "movedim"}, self.transpose),
            ({"__getitem__", "select"}, self.index),
            ({"unbind", "__iter__"}, self.unbind),
            (ADDS, self.add),
            ({"rsub", "__rsub__", "sub", "__sub__", "logical_not", "__invert__"}, self.negate),
            (MULTIPLIES | DIVIDES, self.multiply),
            ({"cat", "concat", "concatenate"}, self.concatenate),
            ({"stack"}, self.stack),
            (set(REDUCTIONS), self.reduce),
            ({"maximum"}, self.maximum),
            (POOLS, self.pool),
        ]
        for names, handler in handlers:
            if name in names:
                return handler(call)
        raise self.refuse(call, "is not understood between spiking layers; use a layer, a sum, a concatenation or a pooling")

    def reshape(self, call: Call, val: Val, edge: GraphEdge) -> Val:
        size = math.prod(val.features)
        for layout in GROUPS[val.layout]:
            lead = self.lead(layout)
            rest = call.shape[len(lead) :]
            if call.shape[: len(lead)] == lead and math.prod(rest) == size and len(rest) >= 1:
                if rest == val.features:
                    return replace(val, layout=layout)
                node = self.add_node("reshape", "flatten", (edge,), rest, call)
                return replace(val, node=node, layout=layout, features=rest)
        raise self.refuse(call, f"mixes samples, steps and features: {val.layout} {val.features} became {call.shape}")

    def transpose(self, call: Call) -> Val:
        val, _ = self.inputs(call)[0]
        if val.layout == "batch_time" and call.shape == (self.steps, self.batch, *val.features):
            return replace(val, layout="time")
        raise self.refuse(call, "permutes axes; only bringing the time of a [N, T, ...] input to the front is understood")

    def index(self, call: Call) -> Val:
        val, _ = self.inputs(call)[0]
        places = [o.constant for o in call.operands if o.key is None]
        if call.per_step and "step" in places and val.layout in ("time", "batch_time"):
            return replace(val, layout="step")
        if places[-1:] == [-1] and val.layout == "time" and not call.per_step:
            return replace(val, layout="static", reduction="last")
        raise self.refuse(call, f"picks {places} of a value in the layout {val.layout}; only x[t] and the last step are understood")

    def unbind(self, call: Call) -> Val:
        val, _ = self.inputs(call)[0]
        if val.layout != "time":
            raise self.refuse(call, f"unbinds the layout {val.layout}; expected time first")
        return replace(val, layout="step")

    def add(self, call: Call) -> Val:
        others = [o for o in call.operands if o.key != call.key]
        if len(others) < len(call.operands) and others and others[0].key is not None:
            val, _ = self.value(call, others[0])
            start = next(o.starts_with for o in call.operands if o.key == call.key)
            if start is not None and self.vals[start].node != val.node:
                raise self.refuse(call, "a running sum begins with another value than it adds")
            return replace(val, sums=True)
        constants = [o.constant for o in call.operands if o.key is None]
        if any(c != 0 for c in constants if isinstance(c, (int, float))) or any(not isinstance(c, (int, float)) for c in constants):
            raise self.refuse(call, f"adds a constant {constants}; give it to a layer as its bias")
        return self.join(call, "add")

    def join(self, call: Call, kind: NodeKind) -> Val:
        found = self.inputs(call)
        if len(found) == 1:
            return found[0][0]
        layouts = {val.layout for val, _ in found}
        layout: Layout = "step" if "step" in layouts and layouts <= {"step", "static"} else found[0][0].layout
        if layouts - {layout, "static"} or len({val.features for val, _ in found}) != 1:
            raise self.refuse(call, f"joins values of different layout or shape: {[(v.layout, v.features) for v, _ in found]}")
        node = self.add_node(kind, kind, tuple(edge for _, edge in found), found[0][0].features, call)
        return Val(node, layout, found[0][0].features)

    def negate(self, call: Call) -> Val:
        found = self.inputs(call)
        constants = [o.constant for o in call.operands if o.key is None]
        if len(found) == 1 and (1 in constants or call.event.name in ("logical_not", "__invert__")):
            return replace(found[0][0], negated=True)
        raise self.refuse(call, "subtracts; only 1 - spikes (for IAND) is understood")

    def multiply(self, call: Call) -> Val:
        found = self.inputs(call)
        numbers = [o.constant for o in call.operands if o.key is None]
        if len(found) == 1 and len(numbers) == 1 and isinstance(numbers[0], (int, float)):
            val, factor = found[0][0], float(numbers[0])
            if val.reduction is None and not val.sums and val.layout != "time":
                raise self.refuse(call, f"scales a value inside the network by {factor}; fold it into the next layer's weights")
            return replace(val, factor=val.factor * (1 / factor if call.event.name in DIVIDES else factor))
        if len(found) != 2 or call.event.name in DIVIDES:
            raise self.refuse(call, "multiplies by a tensor that is not recorded; make it a layer")
        if found[0][0].negated or found[1][0].negated:
            ordered = found if found[0][0].negated else found[::-1]
            node = self.add_node("iand", "iand", tuple(edge for _, edge in ordered), ordered[0][0].features, call)
            return Val(node, ordered[1][0].layout, ordered[0][0].features)
        return self.join(call, "product")

    def maximum(self, call: Call) -> Val:
        return self.join(call, "maximum")

    def concatenate(self, call: Call) -> Val:
        found = self.inputs(call)
        layout = found[0][0].layout
        dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
        dim = int(dims[0]) if dims else 0
        axis = (dim if dim >= 0 else dim + len(call.shape)) - len(self.lead(layout))
        if axis < 0 or any(val.layout != layout for val, _ in found):
            raise self.refuse(call, f"concatenates along time or samples (dim {dim}); only feature axes are understood")
        features = self.strip(call, layout, call.shape)
        node = self.add_node("concat", "concat", tuple(edge for _, edge in found), features, call, options={"axis": axis})
        return Val(node, layout, features)

    def stack(self, call: Call) -> Val:
        found = self.inputs(call)
        dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
        if len(found) == 1 and found[0][0].layout == "time" and (not dims or dims[0] == 0):
            return found[0][0]
        raise self.refuse(call, "stacks; only the list of all time steps along dim 0 is understood")

    def reduce(self, call: Call) -> Val:
        found = self.inputs(call)
        dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
        first = dims[0] if dims else None
        first = first[0] if isinstance(first, (list, tuple)) and len(first) == 1 else first
        if len(found) == 1 and found[0][0].layout == "time" and first == 0:
            return replace(found[0][0], layout="static", reduction=REDUCTIONS[call.event.name])
        raise self.refuse(call, f"reduces dim {first}; only a reduction over time (dim 0 of [T, N, ...]) is understood")

    def pool(self, call: Call) -> Val:
        val, edge = self.inputs(call)[0]
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        given = dict(zip(names, (o.constant for o in call.operands if o.key is None), strict=False))
        options = {**given, **call.event.constants, "name": "max" if "max" in call.event.name else "average"}
        features = self.strip(call, val.layout, call.shape)
        return Val(self.add_node("pool", "pool", (edge,), features, call, options=options), val.layout, features)

    # -- the result --------------------------------------------------------------------

    def output(self) -> Output:
        result = self.folded.result
        assert result.key is not None
        val = self.vals[result.key]
        if result.all_steps or (val.layout in ("time", "step") and not result.last_step and val.reduction is None):
            return Output(source=val.node, reduction="train", factor=val.factor)
        if result.last_step:
            return Output(source=val.node, reduction="sum" if val.sums else "last", factor=val.factor)
        if val.reduction is None:
            raise CaptureError(f"the result comes from {val.node} without a reading over time; expected sum, mean, max or last step")
        return Output(source=val.node, reduction=val.reduction, factor=val.factor)


def build(folded: Folded, modules: dict[str, nn.Module]) -> Graph:
    """Build the graph under the one input layout that makes sense of every call."""
    single_call = folded.looped and folded.steps == 1
    layouts: tuple[Layout, ...] = ("step",) if single_call else ("time", "batch_time", "static")
    errors = []
    for layout in layouts:
        try:
            return Builder(folded, modules, layout).graph()
        except CaptureError as error:
            errors.append(error)
    raise errors[-1]

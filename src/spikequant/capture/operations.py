"""What tensor functions between layers mean for the graph: one handler per kind of function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spikequant.capture.fold import Call
from spikequant.capture.graph import GraphEdge, NodeKind
from spikequant.capture.layouts import ADDS, DIVIDES, GROUPS, MULTIPLIES, POOLS, REDUCTIONS, RESHAPES, Layout, Val

if TYPE_CHECKING:
    from spikequant.capture.build import Builder


def reshape(walk: Builder, call: Call, val: Val, edge: GraphEdge) -> Val:
    """A value under a reshape: another layout of time and batch, or a node that flattens features."""
    size = math.prod(val.features)
    for layout in GROUPS[val.layout]:
        lead = walk.lead(layout)
        rest = call.shape[len(lead) :]
        if call.shape[: len(lead)] == lead and math.prod(rest) == size and len(rest) >= 1:
            if rest == val.features:
                return replace(val, layout=layout)
            node = walk.add_node("reshape", "flatten", (edge,), rest, call)
            return replace(val, node=node, layout=layout, features=rest, delay=0)
    raise walk.refuse(call, f"mixes samples, steps and features: {val.layout} {val.features} became {call.shape}")


def _transpose(walk: Builder, call: Call) -> Val:
    val, _ = walk.inputs(call)[0]
    swapped: dict[Layout, Layout] = {"batch_time": "time", "time": "batch_time"}
    layout = swapped.get(val.layout)
    if layout is not None and _swaps_first_two(call) and call.shape == (*walk.lead(layout), *val.features):
        return replace(val, layout=layout)
    raise walk.refuse(call, "permutes axes; only exchanging time and batch, [N, T, ...] and [T, N, ...], is understood")


def _swaps_first_two(call: Call) -> bool:
    """Whether ``transpose(0, 1)``, ``permute(1, 0, 2, ...)`` or their like exchange the first two axes alone."""
    axes = len(call.shape)
    dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
    flat = [int(d) % axes for dim in dims for d in (dim if isinstance(dim, (list, tuple)) else [dim])]
    return flat == [1, 0, *range(2, axes)] if call.event.name == "permute" else sorted(flat) == [0, 1]


def _repeat_interleave(walk: Builder, call: Call) -> Val:
    """``x.repeat_interleave(T, 0)``: a static input as ``[N * T, ...]``."""
    val, _ = walk.inputs(call)[0]
    dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
    if val.layout == "static" and dims == [walk.steps, 0]:
        return replace(val, layout="batch_merged")
    raise walk.refuse(call, f"repeats {dims}; only a static input, once per step along dim 0, is understood")


def _index(walk: Builder, call: Call) -> Val:
    val, _ = walk.inputs(call)[0]
    places = [o.constant for o in call.operands if o.key is None]
    time_axis = {"time": 0, "batch_time": 1}.get(val.layout)
    if call.per_step and time_axis is not None and _step_axis(call, places) == time_axis:
        return replace(val, layout="step")
    if places[-1:] == [-1] and val.layout == "time" and not call.per_step:
        return replace(val, layout="static", reduction="last")
    raise walk.refuse(
        call, f"picks {places} of a value in the layout {val.layout}; only x[t] and the last step are understood"
    )


def _unbind(walk: Builder, call: Call) -> Val:
    val, _ = walk.inputs(call)[0]
    dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
    if (val.layout, dims[0] if dims else 0) not in (("time", 0), ("batch_time", 1)):
        raise walk.refuse(call, f"unbinds the layout {val.layout} along {dims or 0}; expected the time axis")
    return replace(val, layout="step")


def _add(walk: Builder, call: Call) -> Val:
    others = [o for o in call.operands if o.key != call.key]
    if len(others) < len(call.operands) and others and others[0].key is not None:
        val, _ = walk.value(call, others[0])
        start = next(o.starts_with for o in call.operands if o.key == call.key)
        if start is not None and walk.vals[start].node != val.node:
            raise walk.refuse(call, "a running sum begins with another value than it adds")
        return replace(val, sums=True)
    constants = [o.constant for o in call.operands if o.key is None]
    if any(not isinstance(c, (int, float)) or c != 0 for c in constants):
        raise walk.refuse(call, f"adds a constant {constants}; give it to a layer as its bias")
    return _join(walk, call, "add")


def _join(walk: Builder, call: Call, kind: NodeKind) -> Val:
    found = walk.inputs(call)
    if len(found) == 1:
        return found[0][0]
    layouts = {val.layout for val, _ in found}
    layout: Layout = "step" if "step" in layouts and layouts <= {"step", "static"} else found[0][0].layout
    if layouts - {layout, "static"} or len({val.features for val, _ in found}) != 1:
        raise walk.refuse(
            call, f"joins values of different layout or shape: {[(v.layout, v.features) for v, _ in found]}"
        )
    node = walk.add_node(kind, kind, tuple(edge for _, edge in found), found[0][0].features, call)
    return Val(node, layout, found[0][0].features)


def _negate(walk: Builder, call: Call) -> Val:
    found = walk.inputs(call)
    constants = [o.constant for o in call.operands if o.key is None]
    if len(found) == 1 and (1 in constants or call.event.name in ("logical_not", "__invert__")):
        return replace(found[0][0], negated=True)
    raise walk.refuse(call, "subtracts; only 1 - spikes (for IAND) is understood")


def _multiply(walk: Builder, call: Call) -> Val:
    found = walk.inputs(call)
    numbers = [o.constant for o in call.operands if o.key is None]
    if len(found) == 1 and len(numbers) == 1 and isinstance(numbers[0], (int, float)):
        val, factor = found[0][0], float(numbers[0])
        if val.reduction is None and not val.sums and val.layout != "time":
            raise walk.refuse(
                call, f"scales a value inside the network by {factor}; fold it into the next layer's weights"
            )
        return replace(val, factor=val.factor * (1 / factor if call.event.name in DIVIDES else factor))
    if len(found) != 2 or call.event.name in DIVIDES:
        raise walk.refuse(call, "multiplies by a tensor that is not recorded; make it a layer")
    if any(val.factor != 1.0 for val, _ in found):
        raise walk.refuse(
            call, "multiplies two values one of which is scaled; fold the factor into the next layer's weights"
        )
    if all(val.negated for val, _ in found):
        raise walk.refuse(call, "multiplies two values of the form 1 - spikes; only one of them may be (IAND)")
    if found[0][0].negated or found[1][0].negated:
        ordered = found if found[0][0].negated else found[::-1]
        node = walk.add_node("iand", "iand", tuple(edge for _, edge in ordered), ordered[0][0].features, call)
        return Val(node, ordered[1][0].layout, ordered[0][0].features)
    return _join(walk, call, "product")


def _maximum(walk: Builder, call: Call) -> Val:
    return _join(walk, call, "maximum")


def _concatenate(walk: Builder, call: Call) -> Val:
    found = walk.inputs(call)
    layout = found[0][0].layout
    dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
    dim = int(dims[0]) if dims else 0
    axis = (dim if dim >= 0 else dim + len(call.shape)) - len(walk.lead(layout))
    if axis < 0 or any(val.layout != layout for val, _ in found):
        raise walk.refuse(call, f"concatenates along time or samples (dim {dim}); only feature axes are understood")
    features = walk.strip(call, layout, call.shape)
    node = walk.add_node("concat", "concat", tuple(edge for _, edge in found), features, call, options={"axis": axis})
    return Val(node, layout, features)


def _stack(walk: Builder, call: Call) -> Val:
    found = walk.inputs(call)
    dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
    if len(found) == 1 and found[0][0].layout == "time" and (not dims or dims[0] == 0):
        return found[0][0]
    raise walk.refuse(call, "stacks; only the list of all time steps along dim 0 is understood")


def _reduce(walk: Builder, call: Call) -> Val:
    found = walk.inputs(call)
    dims = [o.constant for o in call.operands if o.key is None] + list(call.event.constants.values())
    first = dims[0] if dims else None
    first = first[0] if isinstance(first, (list, tuple)) and len(first) == 1 else first
    time_axis = {"time": 0, "batch_time": 1}.get(found[0][0].layout)
    if len(found) == 1 and time_axis is not None and first == time_axis:
        return replace(found[0][0], layout="static", reduction=REDUCTIONS[call.event.name])
    raise walk.refuse(call, f"reduces dim {first}; only a reduction over time (dim 0 of [T, N, ...]) is understood")


def _pool(walk: Builder, call: Call) -> Val:
    val, edge = walk.inputs(call)[0]
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(names, (o.constant for o in call.operands if o.key is None), strict=False))
    options = {**given, **call.event.constants, "name": "max" if "max" in call.event.name else "average"}
    features = walk.strip(call, val.layout, call.shape)
    return Val(walk.add_node("pool", "pool", (edge,), features, call, options=options), val.layout, features)


def _step_axis(call: Call, places: list[Any]) -> int | None:
    """The axis that ``x[t]``, ``x[:, t]`` or ``x.select(1, t)`` picks from; None for anything else."""
    if call.event.name == "select":
        return places[0] if places[1:] == ["step"] else None
    if places.count("step") != 1 or any(place != slice(None) for place in places if place != "step"):
        return None
    return places.index("step")


HANDLERS: tuple[tuple[set[str], Callable[[Builder, Call], Val]], ...] = (
    ({"transpose", "permute", "swapaxes", "movedim"}, _transpose),
    ({"repeat_interleave"}, _repeat_interleave),
    ({"__getitem__", "select"}, _index),
    ({"unbind", "__iter__"}, _unbind),
    (ADDS, _add),
    ({"rsub", "__rsub__", "sub", "__sub__", "logical_not", "__invert__"}, _negate),
    (MULTIPLIES | DIVIDES, _multiply),
    ({"cat", "concat", "concatenate"}, _concatenate),
    ({"stack"}, _stack),
    (set(REDUCTIONS), _reduce),
    ({"maximum"}, _maximum),
    (POOLS, _pool),
)


def operation(walk: Builder, call: Call) -> Val:
    """The value that a call of a tensor function gives; raises where the function has no meaning in a graph."""
    name = call.event.name
    if name in RESHAPES:
        val, edge = walk.inputs(call)[0]
        return reshape(walk, call, val, edge)
    for names, handler in HANDLERS:
        if name in names:
            return handler(walk, call)
    raise walk.refuse(
        call, "is not understood between spiking layers; use a layer, a sum, a concatenation or a pooling"
    )

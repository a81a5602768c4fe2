"""Shapes along the edges of a flat graph, without time and batch; every layer's weights are checked against them."""

from __future__ import annotations

import math
from typing import Any

from spikequant.frontends.nir.graph import FlatGraph
from spikequant.law.errors import DataError, Unsupported
from spikequant.readers.nir_.records import NEURONS, NirNode

MOST_ELEMENTS = 2**26
Shape = tuple[int, ...]


def infer_shapes(flat: FlatGraph, start: str) -> None:
    """The shape that every node gives, from the Input on.

    Raises:
        DataError: weights, parameters or declared shapes do not fit what a node gets.
    """
    flat.shapes[start] = _bounded(start, flat.nodes[start].fields["shape"])
    _spread_from(flat, start)
    for name in [n for n, node in flat.nodes.items() if node.kind in ("Affine", "Linear")]:
        if name not in flat.shapes:  # a loop that the input does not reach
            _spread_from(flat, _of_loop(flat, name))
    unknown = [name for name in flat.nodes if name not in flat.shapes]
    if unknown:
        raise DataError(f"{unknown[0]}: nothing tells the shape that it gets; is an edge from the Input missing?")
    for name in flat.nodes:
        found = {flat.shapes[edge.source] for edge in flat.into(name)}
        if len(found) > 1:
            raise DataError(f"{name}: its inputs have the shapes {sorted(found)}; expected equal ones, they are added")
        if flat.kind(name) in ("Affine", "Linear"):
            _linear(name, flat.nodes[name], found.pop())


def _spread_from(flat: FlatGraph, start: str) -> None:
    todo = [start]
    while todo:
        source = todo.pop(0)
        for edge in flat.out_of(source):
            if edge.target not in flat.shapes:
                flat.shapes[edge.target] = _bounded(edge.target, _gives(flat, edge.target, flat.shapes[source]))
                todo.append(edge.target)


def _of_loop(flat: FlatGraph, name: str) -> str:
    """A layer whose shape its weights say; checked against what it gets once that is known."""
    weight = flat.nodes[name].fields["weight"]
    flat.shapes[name] = _linear(name, flat.nodes[name], tuple(weight.shape[1:]))
    return name


def _bounded(name: str, shape: Shape) -> Shape:
    if math.prod(shape) > MOST_ELEMENTS or min(shape) < 1:
        raise DataError(f"{name}: gives the shape {shape}; expected 1 to {MOST_ELEMENTS:,} values")
    return shape


def _gives(flat: FlatGraph, name: str, got: Shape) -> Shape:
    node = flat.nodes[name]
    kind = node.kind
    if kind in ("Input", "Output"):
        return _declared(flat, name, got)
    if kind in ("Affine", "Linear"):
        return _linear(name, node, got)
    if kind in ("Conv1d", "Conv2d"):
        return _conv(name, node, got)
    if kind in ("SumPool2d", "AvgPool2d"):
        return _pool(name, node, got)
    if kind == "Flatten":
        return _flatten(flat, name, got)
    if kind in NEURONS or kind == "Scale":
        for field, value in node.fields.items():
            if value is not None:
                _check_spread(f"{name}.{field}", value.shape, got)
    return got


def _check_spread(where: str, given: Shape, got: Shape) -> None:
    """A parameter has one value for all, or one for each neuron."""
    if math.prod(given) != 1 and _stripped(given) != _stripped(got):
        raise DataError(f"{where}: has the shape {given}, its node gets {got}; expected these shapes to be equal")


def _stripped(shape: Shape) -> Shape:
    """Without leading axes of 1."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _declared(flat: FlatGraph, name: str, got: Shape) -> Shape:
    said = flat.nodes[name].fields["shape"]
    if said is None or said == got:
        return got
    if name in flat.inner or _stripped(said) == _stripped(got):
        flat.notes.append(f"{name}: declares the shape {said}, gets {got}; what it gets counts")
        return got
    raise DataError(f"{name}: declares the shape {said}, gets {got}")


def _linear(name: str, node: NirNode, got: Shape) -> Shape:
    weight, bias = node.fields["weight"], node.fields.get("bias")
    if weight.ndim != 2:
        raise Unsupported(f"{name}.weight: has the shape {weight.shape}; expected one matrix [out, in]")
    if got != (weight.shape[1],):
        raise DataError(f"{name}: gets {got}, its weight is {weight.shape}; expected ({weight.shape[1]},)")
    _check_bias(name, bias, weight.shape[0])
    return (int(weight.shape[0]),)


def _check_bias(name: str, bias: Any, outputs: int) -> None:
    if bias is not None and bias.size != outputs:
        raise DataError(f"{name}.bias: has the shape {bias.shape}; expected ({outputs},)")


def spread(where: str, value: Any, axes: int) -> Shape:
    """One whole number per axis out of one number or one per axis."""
    if len(value) not in (1, axes):
        raise DataError(f"{where}: {value}; expected one number, or {axes}")
    return tuple(value) * axes if len(value) == 1 else tuple(value)


def conv_options(name: str, node: NirNode) -> dict[str, Any]:
    """Stride, padding, dilation and groups of a convolution as torch takes them."""
    axes, f = (1 if node.kind == "Conv1d" else 2), node.fields
    if f["weight"].ndim != axes + 2:
        raise DataError(f"{name}.weight: has the shape {f['weight'].shape}; expected [out, in, {'k, ' * axes}]")
    kernel = f["weight"].shape[2:]
    stride, dilation = (spread(f"{name}.{k}", f[k], axes) for k in ("stride", "dilation"))
    if min(*stride, *dilation, f["groups"]) < 1:
        raise DataError(f"{name}: stride {stride}, dilation {dilation}, groups {f['groups']}; expected at least 1")
    if f["padding"] == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if set(stride) != {1} or any(r % 2 for r in reach):
            raise Unsupported(
                f"{name}: padding 'same' with stride {stride} and kernel {kernel} is uneven; give numbers"
            )
        padding: Shape = tuple(r // 2 for r in reach)
    else:
        padding = (0,) * axes if f["padding"] == "valid" else spread(f"{name}.padding", f["padding"], axes)
    if min(padding) < 0:
        raise DataError(f"{name}.padding: {padding}; expected at least 0")
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": f["groups"]}


def _conv(name: str, node: NirNode, got: Shape) -> Shape:
    options, weight = conv_options(name, node), node.fields["weight"]
    channels = weight.shape[1] * options["groups"]
    if len(got) != weight.ndim - 1 or got[0] != channels or weight.shape[0] % options["groups"]:
        raise DataError(
            f"{name}: gets {got}; its weight {weight.shape} with groups {options['groups']} expects {channels} "
            f"channels and {weight.ndim - 2} more axes, and outputs that the groups divide"
        )
    said = node.fields["input_shape"]
    if said is not None and tuple(said) != got[1:]:
        raise DataError(f"{name}.input_shape: {said}, but it gets {got[1:]}")
    _check_bias(name, node.fields["bias"], weight.shape[0])
    reach = [d * (k - 1) + 1 for d, k in zip(options["dilation"], weight.shape[2:], strict=True)]
    return (int(weight.shape[0]), *_windows(got[1:], reach, options["stride"], options["padding"]))


def _windows(size: Shape, kernel: Any, stride: Shape, padding: Shape) -> Shape:
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


def pool_options(name: str, node: NirNode) -> dict[str, Shape]:
    """Kernel, stride and padding of a pooling."""
    found = {key: spread(f"{name}.{key}", node.fields[key], 2) for key in ("kernel_size", "stride", "padding")}
    if min(*found["kernel_size"], *found["stride"]) < 1 or min(found["padding"]) < 0:
        raise DataError(f"{name}: {found}; expected kernel and stride of at least 1, padding of at least 0")
    if any(2 * p > k for p, k in zip(found["padding"], found["kernel_size"], strict=True)):
        raise DataError(f"{name}: pads {found['padding']}, more than half of its window {found['kernel_size']}")
    return found


def _pool(name: str, node: NirNode, got: Shape) -> Shape:
    options = pool_options(name, node)
    if len(got) != 3:
        raise DataError(f"{name}: gets {got}; a 2d pooling expects [channels, height, width]")
    return (got[0], *_windows(got[1:], options["kernel_size"], options["stride"], options["padding"]))


def flat_axes(name: str, node: NirNode, axes: int) -> tuple[int, int]:
    """First and last axis that a Flatten joins, counted without time and batch."""
    ends = [d + axes if d < 0 else d for d in (node.fields["start_dim"], node.fields["end_dim"])]
    if not 0 <= ends[0] <= ends[1] < axes:
        raise DataError(
            f"{name}: joins the axes {node.fields['start_dim']} to {node.fields['end_dim']} of {axes} (without batch)"
        )
    return ends[0], ends[1]


def _flatten(flat: FlatGraph, name: str, got: Shape) -> Shape:
    node = flat.nodes[name]
    said = node.fields["input_type"]
    if said is not None and said != got:
        raise DataError(f"{name}.input_type: {said}, but it gets {got}")
    first, last = flat_axes(name, node, len(got))
    return (*got[:first], math.prod(got[first : last + 1]), *got[last + 1 :])

"""C text of the other nodes (pooling, concatenation, products of activations, reshapes), and of any node."""

from __future__ import annotations

from spikequant.law.network import InputNode, JoinNode, MatmulNode, NeuronNode, Node, PoolNode, ReshapeNode, SynapseNode
from spikequant.readers.c.elements import write_join, write_neuron
from spikequant.readers.c.layout import Value
from spikequant.readers.c.rows import factor
from spikequant.readers.c.sums import write_synapse
from spikequant.readers.c.types import literal
from spikequant.readers.c.writer import Writer, flat, loops, plain_text, pointer


def write_node(writer: Writer, node: Node) -> None:
    """The function of a node; the input and a reshape that shares its source's memory have none."""
    if isinstance(node, InputNode) or node.name in writer.layout.alias:
        return
    if isinstance(node, SynapseNode):
        write_synapse(writer, node)
    elif isinstance(node, NeuronNode):
        write_neuron(writer, node)
    elif isinstance(node, PoolNode):
        write_pool(writer, node)
    elif isinstance(node, MatmulNode):
        write_matmul(writer, node)
    elif isinstance(node, ReshapeNode):
        write_reshape(writer, node)
    elif node.kind == "concat":
        write_concat(writer, node)
    else:
        write_join(writer, node)


def write_pool(writer: Writer, node: PoolNode) -> None:
    """Sum or maximum over windows; what lies outside takes no part."""
    value = writer.layout.values[node.name]
    ((place, source),) = writer.read(node)
    axes, kind = len(node.kernel), factor(value.ctype)
    names, windows = _axes(node.shape), [f"w{k}" for k in range(axes)]
    lead = names[:-axes]
    body, at = [], list(lead)
    for k, (name, window) in enumerate(zip(names[-axes:], windows, strict=True)):
        pad = node.padding[k]
        body.append(f"const size_t i{k} = {name} * {node.stride[k]}u + {window};")
        outside = [*([f"i{k} < {pad}u"] if pad else []), f"i{k} >= {source.shape[len(lead) + k] + pad}u"]
        body += [f"if ({' || '.join(outside)}) {{", "    continue;", "}"]
        at.append(f"(i{k} - {pad}u)" if pad else f"i{k}")
    body.append(f"const {kind} u = ({kind})in[{source.at(at)}];")
    body.append("best = u > best ? u : best;" if node.kind == "max" else "best += u;")
    first = literal(-(2 ** (63 if kind == "int64_t" else 31))) if node.kind == "max" else "0"
    body = [f"{kind} best = {first};", *loops(windows, node.kernel, body)]
    body.append(f"out[{value.at(names)}] = ({value.ctype.name})best;")
    about = f"{plain_text(node.name)}: {node.kind} over windows of {' x '.join(map(str, node.kernel))}"
    lines = [pointer(source, "in", place), _out(value), *loops(names, node.shape, body)]
    writer.function(node, lines, about=about)


def write_concat(writer: Writer, node: JoinNode) -> None:
    """Values one behind the other along an axis."""
    value, start = writer.layout.values[node.name], 0
    kind, names, lines = factor(value.ctype), _axes(node.shape), [_out(value)]
    for k, ((place, source), gain) in enumerate(zip(writer.read(node), node.gains, strict=True)):
        there = list(names)
        there[node.axis] = f"({names[node.axis]} + {start}u)" if start else names[node.axis]
        scaled = f"({kind})in{k}[{source.at(names)}]" + (f" * {literal(gain)}" if gain != 1 else "")
        copy = f"out[{value.at(there)}] = ({value.ctype.name})({scaled});"
        lines += [pointer(source, f"in{k}", place), *loops(names, source.shape, [copy])]
        start += source.shape[node.axis]
    writer.function(node, lines, about=f"{plain_text(node.name)}: concatenation")


def write_matmul(writer: Writer, node: MatmulNode) -> None:
    """A product of two activations."""
    value = writer.layout.values[node.name]
    (place0, a), (place1, b) = writer.read(node)
    names, kind = _axes(node.shape), factor(value.ctype)
    first, lead = [*names[:-1], "k"], names[:-2]
    second = [*lead, names[-1], "k"] if node.transpose_second else [*lead, "k", names[-1]]
    sum_up = f"sum += ({kind})in0[{a.at(first)}] * ({kind})in1[{b.at(second)}];"
    body = [f"{kind} sum = 0;", *loops(["k"], (a.shape[-1],), [sum_up])]
    body.append(f"out[{value.at(names)}] = ({value.ctype.name})sum;")
    lines = [pointer(a, "in0", place0), pointer(b, "in1", place1), _out(value), *loops(names, node.shape, body)]
    writer.function(node, lines, about=f"{plain_text(node.name)}: product of two activations")


def write_reshape(writer: Writer, node: ReshapeNode) -> None:
    """A reshape that must put the axes back into their logical order."""
    value = writer.layout.values[node.name]
    ((place, source),) = writer.read(node)
    names = _axes(source.shape)
    copy = f"out[{flat(names, source.shape)}] = ({value.ctype.name})in[{source.at(names)}];"
    lines = [pointer(source, "in", place), _out(value), *loops(names, source.shape, [copy])]
    writer.function(node, lines, about=f"{plain_text(node.name)}: axes in their logical order")


def _axes(shape: tuple[int, ...]) -> list[str]:
    return [f"r{k}" for k in range(len(shape))]


def _out(value: Value) -> str:
    return f"{value.ctype.name} *const out = {value.place};"

"""C text of what works element by element: neurons, and joins of the same shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from spikequant.law.formats import IntArray
from spikequant.law.network import JoinNode, NeuronNode, Node
from spikequant.law.noise import NOISE_ROLES, mix
from spikequant.readers.c.layout import Value
from spikequant.readers.c.types import CType, holds
from spikequant.readers.c.weights import Table
from spikequant.readers.c.writer import Writer, loops, plain_text, pointer
from spikequant.readers.emit import Program, Term, record, record_join


def write_neuron(writer: Writer, node: NeuronNode) -> None:
    """The law's step of every neuron of a layer."""
    program = record(node, writer.intervals(node))
    own, value = writer.layout.name(node), writer.layout.values[node.name]
    types = {m.name.removeprefix(f"{own}_"): m.ctype for m in writer.layout.members if m.layer == node.name}
    head, inputs = _noise(writer, node, program)
    if "tick" in program.inputs:
        head.append(f"const int32_t due = ++s->{own}_wait == {node.spec.adapt_every}u;")
        head += ["if (due) {", f"    s->{own}_wait = 0;", "}"]
        inputs["tick"] = "due"
    stores = {name: (f"s->{own}_{name}", types[name]) for name in program.outputs if name in types}
    inputs |= {name: f"s->{own}_{name}[i]" for name in program.inputs if name in types}
    body = _over_elements(writer, node, program, inputs, stores)
    about = f"{plain_text(node.name)}: {', '.join(node.spec.order)}; {value.size} neurons"
    writer.function(node, head + body, about=about)


def _noise(writer: Writer, node: NeuronNode, program: Program) -> tuple[list[str], dict[str, str]]:
    """Keys of the rounding noise of one step, and the expressions of its words."""
    lines, words, layer = [], {}, writer.layout.net.neurons.index(node)
    for role in (name.removeprefix("noise_") for name in program.inputs if name.startswith("noise_")):
        base = mix(mix(mix(0, node.seed), layer), NOISE_ROLES[role])
        key = f"{writer.prefix}_mix({writer.prefix}_mix(UINT32_C({base}), s->time), s->sample)"
        lines.append(f"const uint32_t key_{role} = {key};")
        words[f"noise_{role}"] = f"{writer.prefix}_mix(key_{role}, (uint32_t)neuron)"
        writer.noisy = True
    return lines, words


def write_join(writer: Writer, node: JoinNode) -> None:
    """Sum, product, maximum or iand of values of one shape."""
    value = writer.layout.values[node.name]
    program = record_join(node, writer.intervals(node))
    body = _over_elements(writer, node, program, {}, {"out": (value.place, value.ctype)})
    about = f"{plain_text(node.name)}: {node.kind}"
    writer.function(node, body, about=about)


def _over_elements(
    writer: Writer, node: Node, program: Program, inputs: Mapping[str, str], stores: Mapping[str, tuple[str, CType]]
) -> list[str]:
    """A loop over the elements of a node: loads, the program, stores."""
    value, sources = writer.layout.values[node.name], writer.read(node)
    used = [k for k in range(len(sources)) if f"x{k}" in program.inputs]
    noisy = any(name.startswith("noise_") for name in program.inputs)
    spread = {id(term): _spread(term, node.shape) for term in program.tables}
    nested = any(sources[k][1].last != value.last for k in used) or (noisy and value.last)
    nested = nested or any(kind == "channel" for kind, _ in spread.values())
    inner, channels = math.prod(node.shape[1:]), node.shape[0]
    index = {False: f"c * {inner}u + p", True: f"p * {channels}u + c"} if nested else {False: "i", True: "i"}
    loads = {f"x{k}": f"in{k}[{index[sources[k][1].last]}]" for k in used}
    expressions = {**inputs, **loads}
    tables = {id(term): _table(writer, node, value, term, *spread[id(term)]) for term in program.tables}
    body = [f"const size_t i = {index[value.last]};"] if nested else []
    body += [f"const size_t neuron = {index[False]};"] if noisy else []
    body += writer.printer.lines(program, expressions, tables)
    for name, (place, ctype) in stores.items():
        body.append(f"{place}[i] = ({ctype.name}){writer.printer.name_of(program.outputs[name])};")
    lines = [pointer(sources[k][1], f"in{k}", sources[k][0]) for k in used]
    if not nested:
        return lines + loops(["i"], (value.size,), body)
    order = (["p", "c"], (inner, channels)) if value.last else (["c", "p"], (channels, inner))
    return lines + loops(*order, body)


def _spread(term: Term, shape: tuple[int, ...]) -> tuple[str, IntArray]:
    """A known array per channel if it depends on nothing else, per element otherwise."""
    assert term.known is not None
    full = np.broadcast_to(term.known, shape).reshape(shape[0], -1)
    if full.shape[1] > 1 and bool(np.all(full == full[:, :1])):
        return "channel", full[:, 0].copy()
    return "element", full.reshape(-1)


def _table(writer: Writer, node: Node, value: Value, term: Term, kind: str, array: IntArray) -> str:
    """Add a table of parameters; its C expression."""
    array, index = (array[value.order()], "i") if kind == "element" else (array, "c")
    base, taken = f"{writer.symbol(node)}_{term.name or 'known'}", {table.name for table in writer.tables}
    name = next(n for n in (base, *(f"{base}_{j}" for j in range(2, 99))) if n not in taken)
    writer.tables.append(Table(name, holds(int(array.min()), int(array.max())), array, node.name, "parameters"))
    return f"{name}[{index}]"

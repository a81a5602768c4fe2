"""The C program of a network: its state struct, tables, step function, decoder and self-test."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from spikequant.law.formats import IntArray
from spikequant.law.network import Edge, IntNet, NeuronNode
from spikequant.readers import golden
from spikequant.readers.c.layout import Layout, Member, Value, plan
from spikequant.readers.c.nodes import write_node
from spikequant.readers.c.rows import field_functions
from spikequant.readers.c.step import StepPrinter
from spikequant.readers.c.types import INT32, INT64, UINT8, UINT32, CType, holds
from spikequant.readers.c.weights import Packed, Table
from spikequant.readers.c.writer import Writer, loops

MOST_STEPS = 2**20
"""Scores that add up over time are wide enough for this many steps."""
HASH_START, HASH_FACTOR = 0x811C9DC5, 0x01000193


@dataclass(frozen=True, eq=False)
class CProgram:
    """The parts of a program as text, and what they take."""

    net: IntNet
    prefix: str
    layout: Layout
    members: tuple[Member, ...]
    slots: tuple[tuple[Member, ...], ...]
    tables: tuple[Table, ...]
    packings: tuple[Packed, ...]
    functions: str
    step: str
    score: CType
    neurons: dict[str, dict[str, tuple[str, CType]]]

    @property
    def input_type(self) -> CType:
        """Type of an input code."""
        return self.layout.values[self.net.input.name].ctype

    @property
    def outputs(self) -> int:
        """Number of scores."""
        return math.prod(self.net.node(self.net.decoder.source).shape)

    @property
    def state_bytes(self) -> int:
        """Size of the state struct: members by falling alignment, so that only its end is padded."""
        groups = [(m.ctype.bytes, m.bytes) for m in self.members]
        groups += [(max(m.ctype.bytes for m in slot), _union_bytes(slot)) for slot in self.slots]
        widest = max(align for align, _ in groups)
        total = 0
        for align, size in sorted(groups, key=lambda g: -g[0]):
            total = -(-total // align) * align + size
        return -(-total // widest) * widest


def _union_bytes(slot: tuple[Member, ...]) -> int:
    align = max(m.ctype.bytes for m in slot)
    return -(-max(m.bytes for m in slot) // align) * align


def build(net: IntNet, prefix: str) -> CProgram:
    """Plan the memory and print every part."""
    layout = plan(net)
    writer = Writer(layout, prefix, StepPrinter(prefix))
    for node in net.nodes:
        write_node(writer, node)
    score, decode = _decoder(layout, prefix)
    step = _step(writer, decode)
    members = [
        *layout.members,
        Member("scores", score, math.prod(net.node(net.decoder.source).shape), ""),
        Member("time", UINT32, 0, ""),
        Member("sample", UINT32, 0, ""),
        Member("started", UINT8, 0, ""),
    ]
    ordered = sorted(members, key=lambda m: -m.ctype.bytes)
    texts = [field_functions(writer.packings, prefix), writer.printer.functions()]
    texts += [MIX if writer.noisy else "", NEXT if writer.scans else ""]
    texts = [text.replace("@P", prefix) for text in texts if text]
    functions = "\n".join([*texts, *writer.functions])
    frozen = tuple(tuple(slot) for slot in layout.slots)
    tables, packings = tuple(writer.tables), tuple(writer.packings)
    places = {node.name: _places(layout, node) for node in net.neurons}
    return CProgram(
        net, prefix, layout, tuple(ordered), frozen, tables, packings, functions, step, score, places
    )  # fmt: skip


MIX = """/* fmix of MurmurHash3: one word of rounding noise per sample, step and neuron */
static inline uint32_t @P_mix(uint32_t h, uint32_t word)
{
    h ^= word * UINT32_C(0x9E3779B1) + UINT32_C(0x7F4A7C15);
    h ^= h >> 16;
    h *= UINT32_C(0x85EBCA6B);
    h ^= h >> 13;
    h *= UINT32_C(0xC2B2AE35);
    return h ^ (h >> 16);
}
"""


NEXT = """/* the next byte from `i` on that is not 0, or `n`; silence is skipped eight bytes at a time */
static inline size_t @P_next(const uint8_t *const p, size_t i, const size_t n)
{
    for (; i + 8u <= n; i += 8u) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        if (word != 0) {
            break;
        }
    }
    while (i < n && p[i] == 0) {
        ++i;
    }
    return i;
}
"""


def _places(layout: Layout, node: NeuronNode) -> dict[str, tuple[str, CType]]:
    """Members that hold the states of a neuron layer, and ``out``, by name."""
    own, value = layout.name(node), layout.values[node.name]
    types = {m.name: m.ctype for m in layout.members}
    places = {state: (f"{own}_{state}", types[f"{own}_{state}"]) for state in node.spec.state_formats()}
    return {**places, "out": (value.place.removeprefix("s->"), value.ctype)}


def _decoder(layout: Layout, prefix: str) -> tuple[CType, list[str]]:
    """Type of the scores, and the statements that bring them up to date."""
    decoder = layout.net.decoder
    value, low, high = _decoded(layout)
    gains = None if decoder.gains is None else np.asarray(decoder.gains).reshape(-1)
    most = 1 if gains is None else int(np.abs(gains).max())
    reach = max(-low, high) * most * (MOST_STEPS if decoder.name in ("spike_count", "membrane_sum") else 1)
    score = INT32 if reach < 2**31 else INT64
    names = [f"r{k}" for k in range(len(value.shape))]
    index = value.at(names)
    plain = len(names) == 1 or not value.last
    term = f"({score.name}){value.place}[{'i' if plain else index}]"
    if gains is not None:
        same = bool(np.all(gains == gains[0]))
        term += f" * {gains[0]}" if same else f" * {prefix}_decoder_gains[i]"
    body = [_update(decoder.name, term, score)]
    if decoder.name == "membrane_max":
        body = [
            f"const {score.name} u = {term};",
            "if (!s->started || u > s->scores[i]) {",
            "    s->scores[i] = u;",
            "}",
        ]
    if plain:
        return score, loops(["i"], (value.size,), body)
    flat = names[0]
    for axis, name in zip(value.shape[1:], names[1:], strict=True):
        flat = f"({flat} * {axis}u + {name})"
    return score, loops(names, value.shape, [f"const size_t i = {flat};", *body])


def _decoded(layout: Layout) -> tuple[Value, int, int]:
    """What the decoder reads, and its range: a node's value, or the stored membrane of a neuron layer."""
    decoder = layout.net.decoder
    node, held = layout.net.node(decoder.source), layout.resolve(Edge(decoder.source))
    value = layout.values[held.source]
    low, high = layout.low_high(held.source, with_zero=True)
    if not (decoder.name.startswith("membrane") and isinstance(node, NeuronNode)):
        return value, low, high
    fmt = node.spec.state_formats()["v"]
    assert fmt is not None
    place = f"{layout.name(node)}_v"
    ctype = next(member.ctype for member in layout.members if member.name == place)
    return Value(node, ctype, value.last, f"s->{place}"), fmt.min, fmt.max


def _update(name: str, term: str, score: CType) -> str:
    return f"s->scores[i] {'+=' if name in ('spike_count', 'membrane_sum') else '='} {term};"


def _step(writer: Writer, decode: list[str]) -> str:
    """The body of the step function: static values once, then node after node, decoder, delay lines."""
    layout, lines = writer.layout, []
    once = [writer.calls[n.name] for n in layout.net.nodes if n.name in layout.constant and n.name in writer.calls]
    source = layout.net.input
    place = layout.values[source.name].place
    if source.static and place != "x":
        once = [*loops(["i"], (math.prod(source.shape),), [f"{place}[i] = x[i];"]), *once]
    if once:
        lines += ["if (!s->started) {", *(f"    {line}" for line in once), "}"]
    lines += [
        writer.calls[n.name] for n in layout.net.nodes if n.name in writer.calls and n.name not in layout.constant
    ]
    lines += decode
    for name, depth in layout.depth.items():
        value, own = layout.values[name], layout.name(layout.net.node(name))
        at = f"s->{own}_past[s->{own}_at * {value.size}u + i] = {value.place}[i];"
        lines += [*loops(["i"], (value.size,), [at]), f"s->{own}_at = (s->{own}_at + 1u) % {depth}u;"]
    if not any(re.search(r"\bx\b", line) for line in lines):
        lines.insert(0, "(void)x;")
    return "".join(f"    {line}\n" for line in [*lines, "s->time += 1u;", "s->started = 1;"])


def gains_table(net: IntNet, prefix: str) -> list[Table]:
    """The decoder's gains, where the channels differ."""
    if net.decoder.gains is None:
        return []
    gains = np.asarray(net.decoder.gains, dtype=np.int64).reshape(-1)
    if bool(np.all(gains == gains[0])):
        return []
    ctype = holds(int(gains.min()), int(gains.max()))
    return [Table(f"{prefix}_decoder_gains", ctype, gains, net.decoder.source, "parameters")]


def digest(program: CProgram, run: golden.Run) -> int:
    """The hash over every spike and stored state that the self-test computes: FNV-1a over 32-bit words.

    Step by step, sample by sample, the neuron layers in order, their states and ``out``, in the order of memory.
    """
    columns: list[IntArray] = []
    for node in program.net.neurons:
        order = program.layout.values[node.name].order()
        for name, (_, _) in program.neurons[node.name].items():
            array = run.outputs[node.name] if name == "out" else run.states[node.name][name]
            columns.append(array.reshape(*array.shape[:2], -1)[:, :, order])
    steps, samples = columns[0].shape[:2] if columns else (0, 0)
    value = HASH_START
    for n in range(samples):
        for t in range(steps):
            for column in columns:
                for word in (column[t, n] & 0xFFFFFFFF).tolist():
                    value = ((value ^ word) * HASH_FACTOR) & 0xFFFFFFFF
    return value


__all__ = ["CProgram", "build", "digest", "gains_table"]

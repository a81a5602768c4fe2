"""What the printers of nodes share: collected functions and tables, loops, indices."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from spikequant.law.bounds import Interval
from spikequant.law.network import Node
from spikequant.law.widths import with_start
from spikequant.readers.c.layout import Layout, Value
from spikequant.readers.c.step import StepPrinter
from spikequant.readers.c.weights import Packed, Table


@dataclass
class Writer:
    """Collects the functions and tables of one network's program."""

    layout: Layout
    prefix: str
    printer: StepPrinter
    tables: list[Table] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    packings: list[Packed] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    noisy: bool = False
    scans: bool = False

    def symbol(self, node: Node) -> str:
        """Prefix of a node's functions and tables."""
        return f"{self.prefix}_{self.layout.name(node)}"

    def function(self, node: Node, body: list[str], *, about: str) -> None:
        """Add the function of a node and the call of it."""
        takes_x = any(re.search(r"\bx\b", line) for line in body)
        argument = f", const {self.prefix}_input *const x" if takes_x else ""
        head = f"/* {about} */\nstatic void {self.symbol(node)}({self.prefix}_state *const s{argument})\n{{\n"
        self.functions.append(head + "".join(f"    {line}\n" if line else "\n" for line in body) + "}\n")
        self.calls[node.name] = f"{self.symbol(node)}(s{', x' if takes_x else ''});"

    def read(self, node: Node) -> list[tuple[str, Value]]:
        """Pointers and values of a node's inputs, in the shapes that the node sees."""
        return [self.layout.read(edge, node) for edge in node.inputs]

    def intervals(self, node: Node) -> list[Interval]:
        """Ranges of a node's inputs."""
        return [with_start(self.layout.ranges[e.source], e.delay) for e in node.inputs]


def pointer(value: Value, name: str, place: str) -> str:
    """Declaration of a pointer to what a node reads."""
    return f"const {value.ctype.name} *const {name} = {place};"


def loops(names: list[str], limits: tuple[int, ...], body: list[str]) -> list[str]:
    """Nested counting loops around a body."""
    lines = []
    for depth, (name, limit) in enumerate(zip(names, limits, strict=True)):
        lines.append("    " * depth + f"for (size_t {name} = 0; {name} < {limit}u; ++{name}) {{")
    lines += ["    " * len(names) + line for line in body]
    return lines + ["    " * depth + "}" for depth in reversed(range(len(names)))]


def flat(coordinates: list[str], shape: tuple[int, ...]) -> str:
    """Index of an element of a C-ordered array."""
    index = coordinates[0]
    for axis, coordinate in zip(shape[1:], coordinates[1:], strict=True):
        index = f"({index} * {axis}u + {coordinate})"
    return index


def plain_text(name: str, *, also: str = "") -> str:
    """A name as it may stand in a comment or a string: ASCII letters, digits, ``. _ -``, and what `also` allows.

    >>> plain_text('a */ "b'), plain_text("reference/1", also="/")
    ('a_____b', 'reference/1')
    """
    return "".join(ch if ch.isascii() and (ch.isalnum() or ch in f"._-{also}") else "_" for ch in name)[:60]

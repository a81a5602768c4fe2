"""From a record with subgraphs to one flat graph: nodes by path, edges with delays, an order of one step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spikequant.law.errors import DataError, Unsupported
from spikequant.readers.nir_.records import NirNode, NirRecord


@dataclass(frozen=True)
class FlatEdge:
    """What `target` gets from `source`: its value of this step (0) or of the step before (1)."""

    source: str
    target: str
    delay: int = 0


@dataclass
class FlatGraph:
    """Primitives only; `order` is one in which a step can be computed."""

    nodes: dict[str, NirNode]
    edges: list[FlatEdge]
    notes: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    inner: set[str] = field(default_factory=set)
    """Inputs and Outputs of subgraphs: they pass on what they get."""

    def into(self, name: str) -> list[FlatEdge]:
        """The edges that end in a node."""
        return [edge for edge in self.edges if edge.target == name]

    def out_of(self, name: str) -> list[FlatEdge]:
        """The edges that begin in a node."""
        return [edge for edge in self.edges if edge.source == name]

    def kind(self, name: str) -> str:
        """The primitive of a node."""
        return self.nodes[name].kind


def flatten(record: NirRecord, *, rename: Mapping[str, str]) -> FlatGraph:
    """Put subgraphs in the place of their nodes: ``sub.node``, joined through their one Input and one Output.

    Args:
        record: the graph.
        rename: ends of edges that name no node, by path, and the node that is meant.

    Raises:
        DataError: an edge names a node that does not exist.
    """
    flat = FlatGraph({}, [])
    used: set[str] = set()
    _inline(record, "", flat, rename, used)
    unused = sorted(set(rename) - used)
    if unused:
        raise DataError(f"rename: no edge ends in {unused[0]!r}; it names ends of edges by their path, 'subgraph.node'")
    flat.edges = list(dict.fromkeys(flat.edges))
    return flat


def _inline(record: NirRecord, prefix: str, flat: FlatGraph, rename: Mapping[str, str], used: set[str]) -> None:
    for name, node in record.nodes.items():
        path = f"{prefix}{name}"
        if isinstance(node, NirRecord):
            _inline(node, f"{path}.", flat, rename, used)
        elif path in flat.nodes:
            raise DataError(f"{path}: two nodes have this path; rename one of them in the file")
        else:
            flat.nodes[path] = node
            if prefix and node.kind in ("Input", "Output"):
                flat.inner.add(path)
    for source, target in record.edges:
        ends = [_end(record, prefix, end, rename, used) for end in (source, target)]
        flat.edges.append(FlatEdge(_port(record, prefix, ends[0], "Output"), _port(record, prefix, ends[1], "Input")))


def _end(record: NirRecord, prefix: str, end: str, rename: Mapping[str, str], used: set[str]) -> str:
    """The name of a node of this graph that one end of an edge means."""
    if end in record.nodes:
        return end
    path = f"{prefix}{end}"
    if path in rename:
        used.add(path)
        if rename[path] in record.nodes:
            return rename[path]
        raise DataError(f"rename: {rename[path]!r} is no node beside {path!r}; there are {', '.join(record.nodes)}")
    ends = {e for pair in record.edges for e in pair}
    loose = [name for name in record.nodes if name not in ends]
    hint = (
        f"; {', '.join(map(repr, loose))} has no edge: pass rename={{{path!r}: {loose[0]!r}}} if it is meant"
        if loose
        else ""
    )
    raise DataError(f"an edge names {path!r}, which is no node{hint}")


def _port(record: NirRecord, prefix: str, name: str, kind: str) -> str:
    """The node itself, or the one Input or Output of a subgraph."""
    node = record.nodes[name]
    if not isinstance(node, NirRecord):
        return f"{prefix}{name}"
    ports = [n for n, inner in node.nodes.items() if isinstance(inner, NirNode) and inner.kind == kind]
    if len(ports) != 1:
        raise Unsupported(
            f"{prefix}{name}: a subgraph with {len(ports)} nodes of the kind {kind}; "
            "an edge to a subgraph needs exactly one"
        )
    return f"{prefix}{name}.{ports[0]}"


def keep_what_counts(flat: FlatGraph, output: str | None) -> tuple[str, str]:
    """Drop what neither depends on the input nor leads to the output; gives the names of both.

    Raises:
        DataError, Unsupported: not one Input, or several Outputs of which none was chosen.
    """
    inputs = [n for n, node in flat.nodes.items() if node.kind == "Input" and n not in flat.inner]
    outputs = [n for n, node in flat.nodes.items() if node.kind == "Output" and n not in flat.inner]
    if len(inputs) != 1:
        raise Unsupported(f"the graph has the Inputs {inputs}; expected one (join the others to it as channels)")
    if output is not None and output not in outputs:
        raise DataError(f"output={output!r}; the graph has the Outputs {outputs}")
    if output is None and len(outputs) != 1:
        raise Unsupported(f"the graph has the Outputs {outputs}; choose one of them with output=")
    chosen = output or outputs[0]
    leads = _reach([chosen], [(e.target, e.source) for e in flat.edges])
    if inputs[0] not in leads:
        raise DataError(f"the Output {chosen!r} does not depend on the Input {inputs[0]!r}; is an edge missing?")
    dropped = [name for name in flat.nodes if name not in leads]
    if dropped:
        flat.notes.append(f"left out, because nothing of it reaches the output {chosen!r}: {', '.join(dropped)}")
    flat.nodes = {name: node for name, node in flat.nodes.items() if name in leads}
    flat.edges = [edge for edge in flat.edges if edge.source in leads and edge.target in leads]
    _check_ends(flat, inputs[0], chosen)
    return inputs[0], chosen


def _check_ends(flat: FlatGraph, start: str, end: str) -> None:
    targets = {edge.target for edge in flat.edges}
    for name, node in flat.nodes.items():
        if name not in targets and node.kind != "Input":
            raise DataError(f"{name}: this {node.kind} gets no input; is an edge missing?")
    if flat.into(start):
        raise DataError(f"{start}: an edge leads into the Input; expected edges out of it only")
    if flat.out_of(end):
        raise DataError(f"{end}: an edge leads out of the Output; expected edges into it only")


def _reach(starts: Iterable[str], edges: list[tuple[str, str]]) -> set[str]:
    """Everything that can be reached along directed edges."""
    following: dict[str, list[str]] = {}
    for source, target in edges:
        following.setdefault(source, []).append(target)
    seen, todo = set(starts), list(starts)
    while todo:
        for name in following.get(todo.pop(), []):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen

"""NIR graphs out of HDF5 files and out of `nir.NIRGraph` objects, strictly and within bounds.

Files are read by `readers/nir_/hdf5.py`, not by the HDF5 library, which hangs on some damaged
ones: every dataset is looked at before it is loaded, links that leave the file or go in circles
are refused, and the sum of all values is bounded.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spikequant.law.errors import DataError, Unsupported
from spikequant.readers.nir_.hdf5 import File, Group, Link
from spikequant.readers.nir_.hdf5_values import Dataset
from spikequant.readers.nir_.records import NirNode, NirRecord, check_name, node_record

MOST_VALUES = 2**26
MOST_NODES = 2_000
MOST_EDGES = 20_000
MOST_DEPTH = 16
MOST_TEXT = 2**16
MOST_NAME_BYTES = 1000
"""Of one text where there are many, as in a table of edges."""
OBJECT_TYPES = {"Input": ("shape", "input_type", "input"), "Output": ("shape", "output_type", "output"),
                "Flatten": ("input_type", "input_type", "input")}  # fmt: skip


@dataclass
class _Bounds:
    """What was read so far; raises where a file wants more than any network needs."""

    most_values: int
    values: int = 0
    nodes: int = 0
    open_groups: list[int] = field(default_factory=list)

    def take(self, where: str, values: int) -> None:
        self.values += values
        if self.values > self.most_values:
            raise DataError(
                f"{where}: the graph holds more than {self.most_values:,} values; pass max_values= if it really does"
            )

    def node(self, where: str, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > MOST_DEPTH:
            raise DataError(f"{where}: more than {MOST_NODES:,} nodes, or graphs nested deeper than {MOST_DEPTH}")


def load(source: Any, *, max_values: int = MOST_VALUES) -> NirRecord:
    """The record of a graph given as a path or as a `nir.NIRGraph`."""
    bounds = _Bounds(max_values)
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source), bounds)
    if not (hasattr(source, "nodes") and hasattr(source, "edges")):
        raise Unsupported(
            f"from_nir: got a {type(source).__name__}; expected the path of a .nir file or a nir.NIRGraph"
        )
    return _from_object("graph", source, bounds, 0)


def _edges(where: str, pairs: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    if len(pairs) > MOST_EDGES:
        raise DataError(f"{where}: {len(pairs):,} edges; expected at most {MOST_EDGES:,}")
    twice = next((pair for pair, count in Counter(pairs).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{where}: the edge {twice} is there twice; an edge carries a value once, use a Scale for more")
    return tuple(pairs)


# -- objects ---------------------------------------------------------------------------


def _from_object(where: str, graph: Any, bounds: _Bounds, depth: int) -> NirRecord:
    bounds.node(where, depth)
    if not isinstance(graph.nodes, Mapping):
        raise DataError(f"{where}: nodes is a {type(graph.nodes).__name__}; expected a mapping from names to nodes")
    nodes: dict[str, NirNode | NirRecord] = {}
    for name, node in graph.nodes.items():
        check_name(where, str(name))
        place = f"{where}.{name}"
        if hasattr(node, "nodes") and hasattr(node, "edges"):
            nodes[str(name)] = _from_object(place, node, bounds, depth + 1)
        else:
            bounds.node(place, depth)
            nodes[str(name)] = _object_node(place, node, bounds)
    try:
        pairs = [(str(a), str(b)) for a, b in graph.edges]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: its edges are no pairs of node names") from error
    return NirRecord(nodes=nodes, edges=_edges(where, pairs), metadata=_metadata(graph))


def _object_node(where: str, node: Any, bounds: _Bounds) -> NirNode:
    kind = type(node).__name__
    given = {k: v for k, v in vars(node).items() if k not in ("input_type", "output_type", "metadata")}
    if kind in OBJECT_TYPES:
        name, attribute, key = OBJECT_TYPES[kind]
        types = getattr(node, attribute, None)
        given[name] = types.get(key) if isinstance(types, Mapping) else types
    for value in given.values():
        bounds.take(where, int(getattr(value, "size", 1)))
    return node_record(where, kind, given, _metadata(node))


def _metadata(thing: Any) -> Mapping[str, Any]:
    found = getattr(thing, "metadata", None)
    return dict(found) if isinstance(found, Mapping) else {}


# -- files -----------------------------------------------------------------------------


def _read_file(path: Path, bounds: _Bounds) -> NirRecord:
    if not os.path.isfile(path):  # Path.is_file raises where a name is too long
        raise DataError(f"{path}: there is no such file; expected a .nir file")
    try:
        root = File(path.read_bytes()).root()
    except (DataError, OSError) as error:
        raise DataError(f"{path.name}: no readable HDF5 file ({error})") from error
    node = _member(root, "node", path.name)
    if not isinstance(node, Group):
        raise DataError(f"{path.name}: has no group 'node'; expected a NIR graph as nir.write makes it")
    record = _group(node, path.stem, bounds, 0)
    version = _text(_member(root, "version", path.name), "version") if "version" in root else ""
    integers = _tree(_member(root, "spikequant", path.name), "spikequant", bounds, 0)
    if not isinstance(record, NirRecord):
        raise DataError(f"{path.name}: holds one {record.kind}; expected a NIRGraph")
    return replace(record, version=version, integers=integers)


def _member(group: Group, name: str, where: str) -> Group | Dataset | None:
    """A child of a group that lies in its place; None if there is none."""
    try:
        found = group.get(name)
    except DataError as error:
        raise DataError(f"{where}.{name}: no readable HDF5 ({error})") from error
    if isinstance(found, Link):
        raise DataError(f"{where}.{name}: a link out of its place; expected the data themselves")
    return found


def _group(group: Group, where: str, bounds: _Bounds, depth: int) -> NirNode | NirRecord:
    if group.address in bounds.open_groups:
        raise DataError(f"{where}: a graph that contains itself")
    bounds.node(where, depth)
    kind = _text(_member(group, "type", where), f"{where}.type")
    bounds.open_groups.append(group.address)
    metadata = _tree(_member(group, "metadata", where), f"{where}.metadata", bounds, depth)
    if kind == "NIRGraph":
        found: NirNode | NirRecord = _graph(group, where, bounds, depth, metadata)
    else:
        given = {}
        for name in group:
            if name not in ("type", "metadata"):
                given[name] = _dataset(_member(group, name, where), f"{where}.{name}", bounds)
        found = node_record(where, kind, given, metadata)
    bounds.open_groups.pop()
    return found


def _graph(group: Group, where: str, bounds: _Bounds, depth: int, metadata: Mapping[str, Any]) -> NirRecord:
    unknown = sorted(set(group) - {"type", "metadata", "nodes", "edges"})
    if unknown:
        raise Unsupported(f"{where}: a NIRGraph has no field {unknown[0][:40]!r}; expected nodes, edges, metadata")
    members = _member(group, "nodes", where)
    if not isinstance(members, Group) or len(members) > MOST_NODES:
        raise DataError(f"{where}: lacks the group 'nodes', or it has more than {MOST_NODES:,} members")
    nodes: dict[str, NirNode | NirRecord] = {}
    for name in members:
        check_name(where, name)
        node = _member(members, name, where)
        if not isinstance(node, Group):
            raise DataError(f"{where}.{name}: is no group; expected a node with a type")
        nodes[name] = _group(node, f"{where}.{name}", bounds, depth + 1)
    table = _member(group, "edges", where)
    if not isinstance(table, Dataset):
        raise DataError(f"{where}: lacks the edges; expected a table of pairs of node names")
    return NirRecord(nodes=nodes, edges=_edges(where, _pairs(table, where, bounds)), metadata=metadata)


def _pairs(table: Dataset, where: str, bounds: _Bounds) -> list[tuple[str, str]]:
    if table.shape is None or table.size == 0:
        return []
    if len(table.shape) != 2 or table.shape[1] != 2 or table.shape[0] > MOST_EDGES:
        raise DataError(
            f"{where}.edges: has the shape {table.shape}; expected [E, 2] with at most {MOST_EDGES:,} edges"
        )
    if not table.is_text:
        raise DataError(f"{where}.edges: holds numbers; expected node names")
    rows = _dataset(table, f"{where}.edges", bounds)
    return [(_decoded(f"{where}.edges", a), _decoded(f"{where}.edges", b)) for a, b in rows]


def _decoded(where: str, value: bytes) -> str:
    try:
        return value.decode("utf8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: the text {value[:40]!r} is no UTF-8") from error


def _text(dataset: Group | Dataset | None, where: str) -> str:
    """One short text."""
    value = None if dataset is None else _dataset(dataset, where, _Bounds(MOST_TEXT))
    if not isinstance(value, str):
        raise DataError(f"{where}: expected one text, such as the name of a primitive")
    return value


def _dataset(dataset: Group | Dataset | None, where: str, bounds: _Bounds) -> Any:
    """A dataset that was found harmless: numbers as an array, one text as str, None for an empty one."""
    if not isinstance(dataset, Dataset):
        raise DataError(f"{where}: is a group; expected values")
    most = MOST_TEXT if dataset.shape == () else MOST_NAME_BYTES
    if dataset.is_text and (dataset.volume > 2 * MOST_EDGES or dataset.type.size > most):
        raise DataError(
            f"{where}: {dataset.size:,} texts of {dataset.type.size:,} bytes; expected fewer and shorter ones"
        )
    bounds.take(where, max(1, dataset.volume * -(-dataset.type.size // 8)))  # a long text takes what its bytes take
    try:
        value = dataset.read()
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if not dataset.is_text or dataset.shape != ():
        return value
    if len(value) > MOST_TEXT:
        raise DataError(f"{where}: a text of {len(value):,} bytes; expected a short one")
    return _decoded(where, value)


def _tree(node: Group | Dataset | None, where: str, bounds: _Bounds, depth: int) -> dict[str, Any]:
    """Metadata: nested groups of values."""
    if node is None:
        return {}
    if not isinstance(node, Group):
        raise DataError(f"{where}: is no group; expected named values")
    bounds.node(where, depth)
    found: dict[str, Any] = {}
    for name in node:
        child = _member(node, name, where)
        inner = isinstance(child, Group)
        found[name] = _tree(child, f"{where}.{name}", bounds, depth + 1) if inner else _dataset(child, where, bounds)
    return found

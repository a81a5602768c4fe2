"""The order in which the nodes of one step are computed, and which edges go back in time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from spikequant.frontends.nir.graph import FlatEdge, FlatGraph
from spikequant.law.errors import Unsupported
from spikequant.readers.nir_.records import NEURONS


def order_steps(flat: FlatGraph, start: str) -> None:
    """Order the nodes of one step; an edge that goes back takes the value of the step before.

    Edges into a Delay on a cycle are that step (the Delay then waits one step less).  Where
    the value that goes back only passes a node without state, that node reads the step before.

    Raises:
        Unsupported: a cycle without any neuron or Delay: its value would depend on itself.
    """
    _check_cycles_have_state(flat)
    on_cycle = _cyclic(flat)
    for k, edge in enumerate(flat.edges):
        if (
            flat.kind(edge.target) == "Delay"
            and edge.target in on_cycle
            and on_cycle.get(edge.source) == on_cycle[edge.target]
        ):
            flat.edges[k] = replace(edge, delay=1)
    place = _postorder(flat, start)
    for k, edge in enumerate(flat.edges):
        if edge.delay == 0 and place[edge.source] <= place[edge.target]:
            flat.edges[k] = replace(edge, delay=1)
    _move_delays_to_neurons(flat)
    flat.order = _topological(flat)
    for edge in flat.edges:
        if edge.delay:
            flat.notes.append(
                f"{edge.target} gets {edge.source} of the step before: an edge that goes back waits one step"
            )


def _check_cycles_have_state(flat: FlatGraph) -> None:
    stateless = {name for name, node in flat.nodes.items() if node.kind not in (*NEURONS, "Delay")}
    inside = [edge for edge in flat.edges if edge.source in stateless and edge.target in stateless]
    left = _after_peeling(stateless, inside)
    if left:
        raise Unsupported(
            f"a cycle without state through {', '.join(sorted(left)[:6])}; put a neuron or a Delay into it"
        )


def _after_peeling(names: set[str], edges: list[FlatEdge]) -> set[str]:
    """What is left when nodes without inputs are taken away again and again: nodes behind cycles."""
    return names - set(_peeled(names, edges))


def _peeled(names: Iterable[str], edges: list[FlatEdge]) -> list[str]:
    """Nodes in an order in which each comes after all that it gets (as far as there is one)."""
    waiting: dict[str, int] = dict.fromkeys(names, 0)
    following: dict[str, list[str]] = {}
    for edge in edges:
        waiting[edge.target] += 1
        following.setdefault(edge.source, []).append(edge.target)
    ready = [name for name, count in waiting.items() if count == 0]
    done: list[str] = []
    while ready:
        done.append(ready.pop(0))
        for name in following.get(done[-1], []):
            waiting[name] -= 1
            if waiting[name] == 0:
                ready.append(name)
    return done


def _topological(flat: FlatGraph) -> list[str]:
    found = _peeled(flat.nodes, [edge for edge in flat.edges if edge.delay == 0])
    assert len(found) == len(flat.nodes)
    return found


def _cyclic(flat: FlatGraph) -> dict[str, int]:
    """Nodes that lie on cycles, with the number of their strongly connected part (Kosaraju, without recursion)."""
    forward: dict[str, list[str]] = {name: [] for name in flat.nodes}
    backward: dict[str, list[str]] = {name: [] for name in flat.nodes}
    for edge in flat.edges:
        forward[edge.source].append(edge.target)
        backward[edge.target].append(edge.source)
    finished = _finishing_order(list(flat.nodes), forward)
    part: dict[str, int] = {}
    for name in reversed(finished):
        if name not in part:
            todo, number = [name], len(part)
            while todo:
                found = todo.pop()
                if found not in part:
                    part[found] = number
                    todo += [n for n in backward[found] if n not in part]
    sizes: dict[int, int] = {}
    for number in part.values():
        sizes[number] = sizes.get(number, 0) + 1
    return {name: number for name, number in part.items() if sizes[number] > 1 or name in forward[name]}


def _finishing_order(starts: list[str], following: Mapping[str, list[str]]) -> list[str]:
    """Nodes in the order in which a depth-first walk leaves them."""
    seen: set[str] = set()
    done: list[str] = []
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(following[start]))]
        while stack:
            name, rest = stack[-1]
            step = next((n for n in rest if n not in seen), None)
            if step is None:
                done.append(name)
                stack.pop()
            else:
                seen.add(step)
                stack.append((step, iter(following[step])))
    return done


def _postorder(flat: FlatGraph, start: str) -> dict[str, int]:
    """Place of every node in the walk from the input along edges of this step; neighbours by name."""
    following: dict[str, list[str]] = {name: [] for name in flat.nodes}
    for edge in flat.edges:
        if edge.delay == 0:
            following[edge.source].append(edge.target)
    for names in following.values():
        names.sort()
    rest = sorted(flat.nodes)
    return {name: k for k, name in enumerate(_finishing_order([start, *rest], following))}


def _move_delays_to_neurons(flat: FlatGraph) -> None:
    """A delayed value of a node without state with one input and one reader: let that node read the step before."""
    moved = True
    while moved:
        moved = False
        for edge in [e for e in flat.edges if e.delay]:
            before, after = flat.into(edge.source), flat.out_of(edge.source)
            stateless = flat.kind(edge.source) not in (*NEURONS, "Delay", "Input")
            if stateless and len(before) == len(after) == 1 and before[0].delay == 0:
                flat.edges[flat.edges.index(edge)] = replace(edge, delay=0)
                flat.edges[flat.edges.index(before[0])] = replace(before[0], delay=1)
                moved = True

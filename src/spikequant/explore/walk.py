"""Candidates through the tree: batch by batch, depth first, so that what they share is done once.

Every batch is walked by all candidates that are still in the race; after it, those that cannot keep the target any more
leave.  Groups of candidates that share nothing expensive are walked by several threads.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch

from spikequant.analyse.memory import memory_rows
from spikequant.explore.network import SharedNetwork, place
from spikequant.explore.readout import rights, sums_of_all
from spikequant.explore.records import Candidate, Measured
from spikequant.explore.stage_run import Frame, StageRun
from spikequant.explore.tree import Node
from spikequant.explore.validation import Counts, Validation
from spikequant.law.errors import WidthError
from spikequant.measure import (
    SynOpsCount,
    dead_share,
    energy_pj,
    flash_bits,
    moved_bits,
    network_emd,
    ram_bits,
    total_synops,
)
from spikequant.nn.memory import FreedMemory
from spikequant.plan import Plan

DEAD_BELOW = 0.05


@dataclass(eq=False)
class Racer:
    """A candidate on its way."""

    candidate: Candidate
    plan: Plan
    keys: tuple[tuple[str, str], ...]
    """Of every stage: weight key and key."""
    right: list[np.ndarray] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    seconds: float = 0.0
    refused: str = ""
    result: Measured | None = None


@dataclass
class Total:
    """What a node did on all batches so far."""

    counts: dict[str, Counts] = field(default_factory=dict)
    operations: dict[str, list[SynOpsCount]] = field(default_factory=lambda: defaultdict(list))


def racer(candidate: Candidate, network: SharedNetwork) -> Racer:
    """A candidate before its first batch.

    Raises:
        PlanError: a rule or a role of its plan applies to nothing.
    """
    plan = candidate.plan()
    keys = tuple((stage.weight_key(plan), stage.key(plan)) for stage in network.stages)
    found, started = Racer(candidate, plan, keys), time.perf_counter()
    try:
        network.dress(plan)
    except WidthError as error:
        found.refused = str(error)
    found.seconds = time.perf_counter() - started
    return found


@final
class Walk:
    """One thread's walk with some candidates over all batches."""

    def __init__(self, network: SharedNetwork, data: Validation) -> None:
        self.run, self.network, self.data = StageRun(network), network, data
        self.totals: dict[Node, Total] = {}
        self.freed = FreedMemory()

    @torch.no_grad()
    def race(self, racers: Sequence[Racer]) -> None:
        """Give every racer its result."""
        root = self.network.root
        first = [self._root(("calibration", k), x, 0) for k, x in enumerate(self.network.calibration)]
        self._settle([r for r in racers if not r.refused], root, first)
        alive = [r for r in racers if not r.refused]
        for number, batch in enumerate(self.data.batches):
            if not alive:
                break
            frame = self._root(("validation", number), batch.x, len(batch.y))
            frame.first = sum(len(before.y) for before in self.data.batches[:number])
            self._measure(alive, root, frame, number)
            for one in alive:
                self._judge(one, number + 1)
            alive = [r for r in alive if r.result is None]

    def _root(self, slot: tuple[str, int], x: torch.Tensor, samples: int) -> Frame:
        frame = Frame(self.run, self.network.root, slot, None, samples)
        frame.values["input"] = self.network.graph.time_first(x)
        return frame

    def _settle(self, racers: Sequence[Racer], node: Node, frames: Sequence[Frame]) -> None:
        """Calibrate every node that the racers need and that is not calibrated yet."""
        depth = node.number + 1
        for one in racers:
            one.nodes = one.nodes[:depth]
        if depth == len(self.network.stages):
            return
        for (weight_key, key), members in _groups(racers, depth):
            started = time.perf_counter()
            child = node.child(key, weight_key, kept=depth + 1 < len(self.network.stages))
            self.run.calibrate(child, members[0].plan, frames)
            _share(members, started)
            for one in members:
                one.nodes.append(child)
                one.refused = child.refused
            if not child.refused:
                self._settle(members, child, [self.run.below(f, child) for f in frames])
                self.freed.give_back()

    def _measure(self, racers: Sequence[Racer], node: Node, frame: Frame, number: int) -> None:
        depth = node.number + 1
        groups, started = _groups(racers, depth), time.perf_counter()
        last = depth == len(self.network.stages) - 1
        nodes, targets = [members[0].nodes[depth] for _, members in groups], self.data.batches[number].y
        decided = rights(self.run, frame, nodes, targets) if last else {}
        readouts = sums_of_all(self.run, frame, nodes) if last and not decided else {}
        _share(racers, started)
        for _, members in groups:
            started = time.perf_counter()
            child = members[0].nodes[depth]
            below = self.run.below(frame, child)
            below.readout = readouts.get(child)
            with child.lock:
                known = decided.get(child)
                record = self.run.record(below, targets) if known is None else self.run.decided(below, known)
            total = self.totals.setdefault(child, Total())
            for path, counts in record.counts.items():
                total.counts[path] = counts + total.counts.get(path, 0.0)
            for path, operations in record.operations.items():
                total.operations[path] = [total_synops([*total.operations[path], operations])]
            _share(members, started)
            if record.right is not None:
                for one in members:
                    one.right.append(record.right)
            else:
                self._measure(members, child, below, number)
                self.freed.give_back()

    def _judge(self, one: Racer, batches: int) -> None:
        """Finish a candidate that saw everything or cannot keep the target any more."""
        started = time.perf_counter()
        right = np.concatenate(one.right)
        hopeless = self.data.is_hopeless(right)
        if hopeless or batches == len(self.data.batches):
            one.seconds += time.perf_counter() - started
            one.result = self._result(one, right, batches, stopped_early=hopeless)

    def _result(self, one: Racer, right: np.ndarray, batches: int, *, stopped_early: bool) -> Measured:
        counts: dict[str, Counts] = {}
        operations: dict[str, SynOpsCount] = {}
        for node in one.nodes:
            place(self.run.model, node.modules)
            counts.update(self.totals[node].counts)
            operations.update({path: found[0] for path, found in self.totals[node].operations.items()})
        shapes = {n.path: n.shape for n in self.network.graph.nodes if n.path in counts}
        steps = self.network.graph.steps
        rows = memory_rows(
            self.run.model,
            shapes,
            graph=self.network.graph,
            input_bits=max(self.data.batches[b].bits for b in range(batches)),
            steps=steps,
        )
        widths = {row.layer: row.bits for row in rows if row.role == "weight"}
        means = {path: count.per(len(right)) for path, count in operations.items()}
        energy = energy_pj(
            sum(m.effective_macs for m in means.values()),
            sum(m.effective_acs for m in means.values()),
            weight_bits_read=sum(widths[path] * (m.effective_acs + m.effective_macs) for path, m in means.items()),
            state_bits_moved=moved_bits(rows, steps=steps),
        )
        rates = np.concatenate([c / (steps * len(right)) for c in counts.values()])
        return Measured(
            accuracy=float(right.mean()),
            samples=len(right),
            flash_bytes=flash_bits(rows) / 8,
            ram_bytes=ram_bits(rows) / 8,
            energy_pj=energy.integer_ops_and_traffic,
            emd=network_emd(self.data.emd(counts, batches, steps)),
            dead=dead_share(rates, DEAD_BELOW),
            stopped_early=stopped_early,
            seconds=one.seconds,
            scheme=one.candidate.scheme,
        )


def _groups(racers: Iterable[Racer], depth: int) -> list[tuple[tuple[str, str], list[Racer]]]:
    """Racers by their choice for a stage; those with equal weights follow one another."""
    found: dict[tuple[str, str], list[Racer]] = defaultdict(list)
    for one in racers:
        found[one.keys[depth]].append(one)
    return sorted(found.items(), key=lambda item: item[0])


def _share(members: Sequence[Racer], started: float) -> None:
    share = (time.perf_counter() - started) / len(members)
    for one in members:
        one.seconds += share

"""The loop of a study: claim trials, measure them, write down what came out, batch by batch.

All trials of a batch are proposed before the first of them is measured, and a proposal looks at the trials before its
batch only.  So whoever goes on after a kill finds the same candidates under the same numbers.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, final, runtime_checkable

from spikequant.explore.ledger import Entry, Ledger
from spikequant.explore.proposals import Proposer
from spikequant.explore.records import Candidate, Evaluator, Measured
from spikequant.explore.space import Space
from spikequant.law.errors import ArtifactError

Told = Callable[[Entry], None]


@runtime_checkable
class Runner(Protocol):
    """Who has candidates measured, here or elsewhere."""

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Measured]]:
        """Position and result of each, as they come."""
        ...


@final
class InProcess:
    """An evaluator in this process, `chunk` candidates at a time (None: all that there are)."""

    def __init__(self, evaluator: Evaluator, chunk: int | None = None) -> None:
        self._evaluator, self._chunk = evaluator, chunk

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Measured]]:
        """See `Runner`."""
        chunk = self._chunk or max(1, len(candidates))
        for start in range(0, len(candidates), chunk):
            for position, measured in enumerate(self._evaluator.measure(candidates[start : start + chunk])):
                yield start + position, measured


class Engine:
    """One worker of a study that nobody else works on."""

    def __init__(
        self, space: Space, ledger: Ledger, proposer: Proposer, runner: Runner, *, batch: int, told: Told | None = None
    ) -> None:
        self.space, self.ledger, self.proposer, self.runner = space, ledger, proposer, runner
        self.batch, self.told = batch, told
        self.name = uuid.uuid4().hex[:12]
        self._learnt: set[int] = set()
        self._keys: dict[int, str] = {}

    def run(self, trials: int) -> None:
        """Work until so many trials are finished, or all candidates are."""
        goal = min(trials, self.space.size)
        while mine := self._next(goal):
            self._measure(mine)

    def _next(self, goal: int) -> list[Entry]:
        """The trials to measure now: those of a batch that was begun, or the next batch."""
        entries = self.ledger.entries()
        begun = [entry for entry in entries if entry.state == "running"]
        start = (len(entries) - 1) // self.batch * self.batch if begun else len(entries)
        if begun and any(entry.state != "running" for entry in entries[start:]):
            end = len(entries)  # a result is there, so all of this batch was proposed
        else:
            end = min(goal, start // self.batch * self.batch + self.batch)
        self._learn([entry for entry in entries if entry.number < start])
        for entry in begun:
            entries[entry.number] = self._complete(entry, entries)
        while len(entries) < end:
            entries.append(self._complete(self.ledger.claim(self.name), entries))
        return [entry for entry in entries if entry.state == "running"]

    def _learn(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.state == "measured" and entry.number not in self._learnt:
                self._learnt.add(entry.number)
                self.proposer.learn(self.ledger.frozen(entry.number))

    def _complete(self, entry: Entry, entries: Sequence[Entry]) -> Entry:
        """A trial with all of its point: a process may have died while it wrote it down."""
        names = [axis.name for axis in self.space.axes]
        if any(name not in entry.point for name in names):
            known = [other for other in entries if all(name in other.point for name in names)]
            taken = {self._key(other) for other in known}
            proposal = self.proposer.propose(entry.number, taken)
            point = {**proposal.point, **entry.point}  # what is written stays, and others may have written it
            self.ledger.write_point(entry, point, proposal.notes, self.space.candidate(point))
            entry = replace(entry, point=point)
        return entry

    def _key(self, entry: Entry) -> str:
        if entry.number not in self._keys:
            self._keys[entry.number] = self.space.candidate(entry.point).key
        return self._keys[entry.number]

    def _measure(self, entries: Sequence[Entry]) -> None:
        """Measure what has no result yet, and acknowledge each result as it comes."""
        open_ones = [entry for entry in entries if entry.measured is None]
        for entry in entries:
            if entry.measured is not None:  # it died between a result and its acknowledgement
                self._tell(entry, entry.measured)
        candidates = [self.space.candidate(entry.point) for entry in open_ones]
        for position, measured in self.runner.run(candidates):
            self._tell(open_ones[position], measured)

    def _tell(self, entry: Entry, measured: Measured) -> None:
        refused = measured.accuracy != measured.accuracy
        if self.ledger.finish(entry, measured) and self.told is not None:
            self.told(replace(entry, state="refused" if refused else "measured", measured=measured))


@final
class SharedEngine(Engine):
    """One of several workers of a study, each with its own trials.

    A worker says by a counter that it lives; one whose counter stands still for `grace` seconds is taken for dead, by
    the clock of the worker that watches it, and its trials are taken over under their numbers.  Who takes over writes
    its name and waits until every other one that did the same must have been seen.
    """

    def __init__(
        self,
        space: Space,
        ledger: Ledger,
        proposer: Proposer,
        runner: Runner,
        *,
        batch: int,
        told: Told | None = None,
        grace: float = 60.0,
        settle: float = 2.0,
    ) -> None:
        super().__init__(space, ledger, proposer, runner, batch=batch, told=told)
        self._grace, self._settle = grace, settle
        self._seen: dict[int, tuple[str | None, float]] = {}

    def run(self, trials: int) -> None:
        """Work until so many trials are finished, by whomever."""
        goal = min(trials, self.space.size)
        while True:
            mine = self._next(goal)
            if mine:
                with _alive(self.ledger, mine, self.name, self._grace / 4):
                    self._measure(mine)
            elif all(entry.state != "running" for entry in self.ledger.entries()):
                return
            else:
                time.sleep(min(self._settle, self._grace / 4))

    def _next(self, goal: int) -> list[Entry]:
        entries = self.ledger.entries()
        self._learn(entries)
        found = [self._complete(entry, entries) for entry in self._inherited(entries)]
        while len(entries) < goal and len(found) < self.batch:
            entry = self.ledger.claim(self.name)
            if entry.number >= goal:  # others claimed the last ones meanwhile
                self.ledger.drop(entry)
                break
            entry = self._complete(entry, self.ledger.entries() if self.proposer.looks_back else [])
            entries.append(entry)
            found.append(entry)
        return found

    def _inherited(self, entries: Sequence[Entry]) -> list[Entry]:
        """Trials of workers that died."""
        now = time.monotonic()
        stale = []
        for entry in entries:
            if entry.state != "running":
                self._seen.pop(entry.number, None)
            elif entry.owner is None or not entry.owner.startswith(self.name):
                owner, since = self._seen.setdefault(entry.number, (entry.owner, now))
                if owner != entry.owner:
                    self._seen[entry.number] = (entry.owner, now)
                elif now - since >= self._grace:
                    stale.append(entry)
        if not stale:
            return []
        for entry in stale[: self.batch]:
            self.ledger.own(entry, self.name)
        time.sleep(self._settle)
        return [
            entry
            for entry in self.ledger.entries()
            if entry.state == "running" and entry.owner == self.name and entry.number in {e.number for e in stale}
        ]


class _alive:
    """While the block runs, a thread counts on for the trials of a worker."""

    def __init__(self, ledger: Ledger, entries: Sequence[Entry], name: str, every: float) -> None:
        self._ledger, self._entries, self._name, self._every = ledger, entries, name, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _count(self) -> None:
        beat = 0
        while not self._stop.wait(self._every):
            beat += 1
            for entry in self._entries:
                with contextlib.suppress(ArtifactError):  # the worker itself will meet it, too, and say so
                    self._ledger.own(entry, f"{self._name}:{beat}")

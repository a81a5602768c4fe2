"""Readers by name, and `verify_readers`: every reader against the golden model, every spike and stored state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntArray
from spikequant.law.network import IntNet
from spikequant.readers import golden, native
from spikequant.readers.vectors import stimulus

Runner = Callable[[IntNet, IntArray], golden.Run]


def _golden(net: IntNet, codes: IntArray) -> golden.Run:
    return golden.run(net, codes)


def _c99(net: IntNet, codes: IntArray) -> golden.Run:
    return native.compile(net).trace(codes)


def _c99_missing() -> str:
    return "" if native.find_compiler() is not None else "no C compiler was found (tried $CC, cc, gcc, clang)"


READERS: Mapping[str, Runner] = {"golden": _golden, "c99": _c99}
"""Name -> function of a network and input codes; adding a reader is one line here."""
MISSING: Mapping[str, Callable[[], str]] = {"c99": _c99_missing}
"""Name -> why this computer cannot run the reader, or nothing."""


@dataclass(frozen=True)
class ReaderReport:
    """What one reader gave beside the golden model.

    Attributes:
        reader: its name.
        neuron_steps: neurons times steps times samples that were compared.
        spikes: how many spikes were seen; equality of silent networks proves nothing.
        states: stored values that were compared.
        differences: spikes, states and scores that differ.
        first: where the first difference is.
        skipped: why the reader did not run; empty if it did.
    """

    reader: str
    neuron_steps: int = 0
    spikes: int = 0
    states: int = 0
    differences: int = 0
    first: str = ""
    skipped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        if self.skipped:
            return {"skipped": self.skipped}
        counts = {"neuron_steps": self.neuron_steps, "spikes": self.spikes, "states": self.states}
        return {**counts, "differences": self.differences, **({"first": self.first} if self.first else {})}

    def __str__(self) -> str:
        if self.skipped:
            return f"{self.reader}: skipped, {self.skipped}"
        counts = f"{self.neuron_steps:,} neuron-steps, {self.spikes:,} spikes, {self.states:,} states"
        return f"{self.reader}: {counts}, {self.differences:,} differences" + (
            f", first {self.first}" * bool(self.first)
        )


def chosen(readers: str | Iterable[str]) -> tuple[str, ...]:
    """Names of readers from ``"all"``, ``"golden,c99"`` or a list.

    >>> chosen("all"), chosen("c99")
    (('golden', 'c99'), ('c99',))
    """
    if readers == "all":
        return tuple(READERS)
    names = [n.strip() for n in readers.split(",")] if isinstance(readers, str) else list(readers)
    for name in names:
        if name not in READERS:
            raise Unsupported(f"reader {name!r}; expected 'all' or some of {', '.join(READERS)}")
    return tuple(names)


def verify_readers(net: IntNet, inputs: Any = None, *, readers: str | Iterable[str] = "all") -> list[ReaderReport]:
    """Run readers on the same inputs and compare them with the golden model, value by value.

    Scores of embedded test vectors are compared too (under ``golden``): they say what the file promises.

    Args:
        net: the network.
        inputs: data as the network takes them; the embedded test vectors where absent.
        readers: ``"all"`` or names; a reader that cannot run here says why, and is no failure.

    Raises:
        DataError: neither inputs nor embedded vectors, or inputs that do not fit.
        Unsupported: an unknown reader.
    """
    names, codes = chosen(readers), stimulus(net, inputs)
    wanted = golden.run(net, codes)
    reports = []
    for name in names:
        reason = MISSING[name]() if name in MISSING else ""
        if reason:
            reports.append(ReaderReport(name, skipped=reason))
            continue
        promised = (
            net.vectors.scores if name == "golden" and inputs is None and net.vectors is not None else wanted.scores
        )
        found = wanted if name == "golden" else READERS[name](net, codes)
        reports.append(compare(name, net, found, wanted, promised))
    return reports


def compare(name: str, net: IntNet, found: golden.Run, wanted: golden.Run, scores: IntArray) -> ReaderReport:
    """Count what differs between a run and the golden run."""
    differences, first = 0, ""
    pairs = [(f"spikes of {n}", found.outputs[n], wanted.outputs[n]) for n in wanted.outputs]
    pairs += [
        (f"state {s} of {n}", found.states[n][s], wanted.states[n][s]) for n in wanted.states for s in wanted.states[n]
    ]
    for what, a, b in [*pairs, ("scores", found.scores, scores)]:
        wrong = np.asarray(a != b) if np.shape(a) == np.shape(b) else np.ones(np.shape(b), dtype=bool)
        differences += int(wrong.sum())
        if wrong.any() and not first:
            place = [int(k) for k in np.argwhere(wrong)[0]]
            first = f"{what} at {place}"
    spiking = [n.name for n in net.neurons if n.spec.output == "spike"]
    return ReaderReport(
        name,
        neuron_steps=sum(o.size for o in wanted.outputs.values()),
        spikes=sum(int(found.outputs[n].sum()) for n in spiking),
        states=sum(v.size for s in wanted.states.values() for v in s.values()),
        differences=differences,
        first=first,
    )

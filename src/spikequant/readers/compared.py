"""What a reader gave beside the golden model, counted value by value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spikequant.law.formats import IntArray
from spikequant.law.network import IntNet
from spikequant.readers import golden


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
        spikes=sum(int(found.outputs[n].sum()) for n in spiking if n in found.outputs),
        states=sum(v.size for s in wanted.states.values() for v in s.values()),
        differences=differences,
        first=first,
    )

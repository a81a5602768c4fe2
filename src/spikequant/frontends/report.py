"""What `check_reading` found, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Grade = Literal["exact", "faithful", "refused"]


@dataclass(frozen=True, kw_only=True)
class LayerReading:
    """One neuron layer: what it is in words of the law, and how its reading compares with the original.

    Attributes:
        grade: ``exact``: every spike is equal.  ``faithful``: `difference` says what is not.  ``refused``: no
            reading holds, `difference` says why.
        neuron_steps, spikes, differing: neuron-steps compared, spikes of the original, and how many are not equal.
        margin: largest distance from the threshold, in thresholds, at which a neuron first differed.
    """

    path: str
    kind: str
    library: str
    grade: Grade
    difference: str = ""
    neuron_steps: int = 0
    spikes: int = 0
    differing: int = 0
    margin: float = 0.0
    order: tuple[str, ...] = ()
    compare: str = ""
    reset: str = ""
    gain: str = "1"
    surrogate: str = ""
    detach_reset: bool = False

    @property
    def reset_time(self) -> str:
        """``now``, ``next step``, or nothing for a neuron that is never reset."""
        return "next step" if "reset_delayed" in self.order else "" if self.reset in ("none", "") else "now"


@dataclass(frozen=True)
class ReadingReport:
    """Every neuron layer of another library, in the order of the model."""

    layers: tuple[LayerReading, ...]

    @property
    def holds(self) -> bool:
        """Whether no layer is refused."""
        return all(layer.grade != "refused" for layer in self.layers)

    @property
    def exact(self) -> bool:
        """Whether every spike of every layer is equal."""
        return all(layer.grade == "exact" for layer in self.layers)

    def __str__(self) -> str:
        """A plain table, then a line for every layer that is not exact."""
        header = ("layer", "kind", "grade", "spikes", "differ", "compare", "reset", "order", "gain", "surrogate")
        lines = [header, *(_cells(layer) for layer in self.layers)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
        table = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*table, *(f"{n.path}: {n.difference}" for n in self.layers if n.difference)])


def _cells(layer: LayerReading) -> tuple[str, ...]:
    reset = f"{layer.reset} {layer.reset_time}".strip()
    surrogate = layer.surrogate + (", detached reset" if layer.detach_reset else "")
    return (
        layer.path,
        f"{layer.library} {layer.kind}",
        layer.grade,
        f"{layer.spikes:,} of {layer.neuron_steps:,}",
        f"{layer.differing:,}",
        layer.compare,
        reset,
        " > ".join(layer.order),
        layer.gain,
        surrogate,
    )

"""What `compare` finds, as records: per layer, per network, and of the two together."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from spikequant.analyse.side import AnnBaseline, Side, plain
from spikequant.measure import Divergence, network_emd, network_emd_weighted

RateArray = npt.NDArray[np.float32]
SpikeArray = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class LayerBehaviour:
    """Firing of one layer in both networks, over all samples and steps.

    Attributes:
        layer: path of the neuron layer.
        neurons: how many neurons it has.
        emd: Wasserstein-1 distance between the two distributions of rates, in spikes per step.
        floor: the same distance between two halves of the data, in the reference.
        seed_floor: the same distance between the reference and a float network of another seed; None if none was given.
        matched_l1: mean difference of each neuron's two rates.
        rate, reference_rate: mean rates.
        dead, reference_dead: share of neurons with a rate below `Comparison.dead_below`.
        silent, reference_silent: share of neurons that never fired.
        saturated, reference_saturated: share of neurons with a rate of 0.95 or more.
        rates, reference_rates: rate of every neuron, float32 ``[neurons]``; left out of ``==``.
    """

    layer: str
    neurons: int
    emd: float
    floor: float
    seed_floor: float | None = None
    matched_l1: float
    rate: float
    reference_rate: float
    dead: float
    reference_dead: float
    silent: float
    reference_silent: float
    saturated: float
    reference_saturated: float
    rates: RateArray = field(compare=False, repr=False)
    reference_rates: RateArray = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Spikes of one sample in one layer of both networks.

    Attributes:
        layer: path of the neuron layer.
        sample: which sample, counted from 0 in the order of the data.
        neurons: indices of the neurons shown, evenly spaced over the flattened layer, int64 ``[shown]``.
        total: how many neurons the layer has.
        reference, quantized: spike counts, int32 ``[T, shown]``.
    """

    layer: str
    sample: int
    neurons: npt.NDArray[np.int64] = field(compare=False, repr=False)
    total: int
    reference: SpikeArray = field(compare=False, repr=False)
    quantized: SpikeArray = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Reference against quantized network on the same data.

    Attributes:
        difference: change of accuracy in points.
        interval: half of its paired 95 % interval (normal approximation of the per-sample differences).
        steps: time steps of a sample.
        first_divergence: the first spike that differs over all data: earliest step, then the reference's order of
            layers, then sample, then neuron; None if every spike is equal.
        diverged_samples: share of samples in which at least one spike differs.
        dead_below: rate under which a neuron counts as dead.
        ann: a same-bits network without spikes, if one was made.
        notes: what could not be measured, and why.
    """

    reference: Side
    quantized: Side
    samples: int
    steps: int
    difference: float
    interval: float
    layers: tuple[LayerBehaviour, ...]
    rasters: tuple[Raster, ...] = ()
    first_divergence: Divergence | None = None
    diverged_samples: float = 0.0
    dead_below: float = 0.05
    ann: AnnBaseline | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        was, now = self.reference, self.quantized
        lines = [
            f"{self.difference:+.2f} \N{PLUS-MINUS SIGN} {self.interval:.2f} points of accuracy on {self.samples:,} "
            f"samples ({was.accuracy:.2%} before, {now.accuracy:.2%} after)",
            f"EMD {self.emd:.4f} (floor {self.floor:.4f}), dead {self.reference_dead:.1%} -> {self.dead:.1%}",
            f"flash {was.flash_bytes:,.0f} -> {now.flash_bytes:,.0f} B, RAM {was.ram_bytes:,.0f} -> "
            f"{now.ram_bytes:,.0f} B",
        ]
        if now.in_c is not None:
            lines.append(f"exported as C: flash {now.in_c.flash:,} B, RAM {now.in_c.ram:,} B, in whole words")
        lines += [
            f"{layer.layer}: rate {layer.reference_rate:.4f} -> {layer.rate:.4f}, "
            f"EMD {layer.emd:.4f} (floor {layer.floor:.4f}), dead {layer.dead:.1%}"
            for layer in self.layers
        ]
        return "\n".join([*lines, *self.notes])

    @property
    def emd(self) -> float:
        """Mean over layers."""
        return network_emd({layer.layer: layer.emd for layer in self.layers})

    @property
    def emd_weighted(self) -> float:
        """Mean over neurons."""
        neurons = {layer.layer: layer.neurons for layer in self.layers}
        return network_emd_weighted({layer.layer: layer.emd for layer in self.layers}, neurons)

    @property
    def floor(self) -> float:
        """Mean over layers of the EMD between two halves of the data."""
        return network_emd({layer.layer: layer.floor for layer in self.layers})

    @property
    def seed_floor(self) -> float | None:
        """Mean over layers of the EMD between two float seeds; None if no second one was given."""
        found = {layer.layer: layer.seed_floor for layer in self.layers if layer.seed_floor is not None}
        return network_emd(found) if found else None

    @property
    def dead(self) -> float:
        """Share of neurons with a rate below `dead_below`, over the whole network."""
        return self._share("dead")

    @property
    def reference_dead(self) -> float:
        """The same of the reference."""
        return self._share("reference_dead")

    @property
    def silent(self) -> float:
        """Share of neurons that never fired, over the whole network."""
        return self._share("silent")

    @property
    def reference_silent(self) -> float:
        """The same of the reference."""
        return self._share("reference_silent")

    @property
    def saturated(self) -> float:
        """Share of neurons with a rate of 0.95 or more, over the whole network."""
        return self._share("saturated")

    @property
    def reference_saturated(self) -> float:
        """The same of the reference."""
        return self._share("reference_saturated")

    def _share(self, name: str) -> float:
        total = sum(layer.neurons for layer in self.layers)
        return sum(float(getattr(layer, name)) * layer.neurons for layer in self.layers) / total

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the rates of single neurons and the rasters; NaN becomes None."""
        names = (
            *("samples", "steps", "emd", "emd_weighted", "seed_floor", "dead_below", "diverged_samples"),
            *("dead", "silent", "saturated", "reference_dead", "reference_silent", "reference_saturated"),
        )
        first = self.first_divergence
        record = {
            **{name: getattr(self, name) for name in names},
            "difference_points": self.difference,
            "interval_points": self.interval,
            "emd_floor": self.floor,
            "first_divergence": None if first is None else dataclasses.asdict(first),
            "reference": self.reference.to_dict(),
            "quantized": self.quantized.to_dict(),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "ann": None if self.ann is None else self.ann.to_dict(),
            "notes": list(self.notes),
        }
        return plain(record)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file, whole or not at all; see `analyse/file.py`."""
        from spikequant.analyse.file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a missing, damaged or foreign file, or one of another version.
        """
        from spikequant.analyse.file import load

        return load(cls, path)

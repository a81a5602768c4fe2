"""`compare`: what quantization did to accuracy, firing behaviour, memory and operations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.analyse.memory import memory_rows
from spikequant.analyse.probe import Observation, observe
from spikequant.law.errors import DataError
from spikequant.measure import (
    dead_share,
    emd,
    flash_bits,
    matched_l1,
    network_emd,
    network_emd_weighted,
    ram_bits,
    saturated_share,
    silent_share,
    total_synops,
)


@dataclass(frozen=True, kw_only=True)
class LayerBehaviour:
    """Firing of one layer in both networks; ``floor`` is the EMD between two halves of the data."""

    layer: str
    neurons: int
    emd: float
    floor: float
    matched_l1: float
    rate: float
    reference_rate: float
    dead: float
    reference_dead: float
    silent: float
    saturated: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """Figures of one of the two networks; operations are per sample."""

    accuracy: float
    flash_bytes: float
    ram_bytes: float
    effective_acs: float
    effective_macs: float
    dense: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Reference against quantized network on the same data.

    ``difference`` is the change of accuracy in points with its paired 95 % interval
    (normal approximation of the per-sample differences).
    """

    reference: Side
    quantized: Side
    samples: int
    difference: float
    interval: float
    layers: tuple[LayerBehaviour, ...]

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
    def dead(self) -> float:
        """Share of neurons with a rate below 0.05, over the whole network."""
        return sum(layer.dead * layer.neurons for layer in self.layers) / sum(layer.neurons for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "samples": self.samples,
            "difference_points": self.difference,
            "interval_points": self.interval,
            "emd": self.emd,
            "emd_weighted": self.emd_weighted,
            "emd_floor": self.floor,
            "dead": self.dead,
            "reference": self.reference.__dict__,
            "quantized": self.quantized.__dict__,
            "layers": [layer.__dict__ for layer in self.layers],
        }


def paired_difference(reference: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Change of accuracy in points and half of its 95 % interval, from per-sample right / wrong.

    ``d_i = other_i - reference_i``; interval ``1.96 * std(d) / sqrt(n)``.

    >>> paired_difference(np.array([1, 1, 0, 1]), np.array([1, 0, 1, 1]))[0]
    0.0
    """
    d = 100.0 * (other.astype(np.float64) - reference.astype(np.float64))
    return float(d.mean()), float(1.96 * d.std(ddof=1) / math.sqrt(len(d))) if len(d) > 1 else float("nan")


def compare(reference: nn.Module, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Comparison:
    """Run both networks over `batches` (a re-iterable with a fixed order) and compare.

    Raises:
        DataError: the two networks have different neuron layers, or the data changed between the passes.
    """
    before, after = observe(reference, batches), observe(model, batches)
    if list(before.firing) != list(after.firing):
        raise DataError(
            f"compare: the networks have different neuron layers, {list(before.firing)} and {list(after.firing)}; "
            "expected the same network before and after quantize_"
        )
    if len(before.right) != len(after.right) or bool((torch.cat(before.targets) != torch.cat(after.targets)).any()):
        raise DataError(
            "compare: the targets changed between the two passes; use batches in a fixed order (shuffle=False)"
        )
    difference, interval = paired_difference(before.right, after.right)
    return Comparison(
        reference=_side(reference, before),
        quantized=_side(model, after),
        samples=len(before.right),
        difference=difference,
        interval=interval,
        layers=tuple(_layer(path, before, after) for path in before.firing),
    )


def _layer(path: str, before: Observation, after: Observation) -> LayerBehaviour:
    r, s = before.firing[path].rates(), after.firing[path].rates()
    floor = float("nan")
    if before.firing[path].batches > 1:
        floor = emd(*before.firing[path].halves())
    return LayerBehaviour(
        layer=path,
        neurons=len(r),
        emd=emd(r, s),
        floor=floor,
        matched_l1=matched_l1(r, s),
        rate=float(s.mean()),
        reference_rate=float(r.mean()),
        dead=dead_share(s),
        reference_dead=dead_share(r),
        silent=silent_share(s),
        saturated=saturated_share(s),
    )


def _side(model: nn.Module, seen: Observation) -> Side:
    rows = memory_rows(model, seen.shapes)
    total = total_synops(counter.count() for counter in seen.operations.values())
    samples = len(seen.right)
    return Side(
        accuracy=float(seen.right.mean()),
        flash_bytes=flash_bits(rows) / 8,
        ram_bytes=ram_bits(rows) / 8,
        effective_acs=total.effective_acs / samples,
        effective_macs=total.effective_macs / samples,
        dense=total.dense / samples,
    )

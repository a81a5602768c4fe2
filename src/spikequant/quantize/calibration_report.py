"""What `calibrate` chose, layer by layer, and what to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikequant.quantize.second_order import SolvedWeights

MOST_BITS = 16


@dataclass(frozen=True, kw_only=True)
class SettledInflow:
    """What was chosen for a synaptic current (``i``), or for the register of the sum of a step (``x``)."""

    state: str
    rounding: str
    limit: float

    @property
    def name(self) -> str:
        """In words."""
        return {"i": "current", "x": "input of the membrane"}[self.state]

    def __str__(self) -> str:
        return f"{self.name} {self.rounding}, reach {self.limit:.3g}"


@dataclass(frozen=True, kw_only=True)
class CalibratedLayer:
    """What was chosen for one neuron layer, and the firing rates behind it.

    ``limit``: reach of the membrane; infinite where it was not asked for and is kept wide.  ``enough_bits``: where the
    rate is more than a tenth off, the fewest membrane bits that bring it back; they were tried on the same data.
    """

    path: str
    rounding: str
    limit: float
    rate: float
    wide_rate: float
    error: float
    spikes: bool = True
    enough_bits: int | None = None
    inflow: SettledInflow | None = None

    @property
    def remedy(self) -> str:
        """How many membrane bits would do; that none would, where they are not what is narrow."""
        if self.enough_bits is None and self.inflow is not None:
            membrane = f"a membrane of {MOST_BITS} bits" if math.isfinite(self.limit) else "its wide membrane"
            return f"{membrane} does not bring it to {self.wide_rate:.4f}; try more current.bits ({self.inflow.name})"
        if self.enough_bits is None:
            return f"no membrane of up to {MOST_BITS} bits brings it to {self.wide_rate:.4f}"
        return f"membrane.bits = {self.enough_bits} brings it to {self.wide_rate:.4f} (tried)"

    def __str__(self) -> str:
        membrane = f"{self.rounding}, reach {self.limit:.3g}" if math.isfinite(self.limit) else "a wide membrane"
        chosen = membrane if self.inflow is None else f"{membrane}; {self.inflow}"
        if not self.spikes:
            return f"{self.path}: {chosen}, a readout that does not spike"
        change = abs(self.rate - self.wide_rate) / max(self.wide_rate, 1e-9)
        return (
            f"{self.path}: {chosen}, "
            f"rate {self.rate:.4f} (wide membrane {self.wide_rate:.4f}, {100 * change:.1f} % apart)"
        )


@dataclass(frozen=True)
class CalibrationReport:
    """All layers; ``warnings`` names those whose rate moved by more than a tenth or fell silent.

    ``solved``: what a weight solver did, layer by layer.
    """

    layers: tuple[CalibratedLayer, ...]
    solved: tuple[SolvedWeights, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Layers to look at."""
        found = []
        for layer in (layer for layer in self.layers if layer.spikes):
            if layer.rate == 0.0 and layer.wide_rate == 0.0:
                found.append(
                    f"{layer.path} is silent on the calibration data; so it is with a wide membrane: the cause lies in "
                    "its weights, its threshold or what it is given, and spikequant.analyse.diagnose finds it"
                )
            elif layer.rate == 0.0:
                found.append(f"{layer.path} is silent on the calibration data; {layer.remedy}")
            elif is_off(layer.rate, layer.wide_rate):
                found.append(f"{layer.path} fires at {layer.rate:.4f} instead of {layer.wide_rate:.4f}; {layer.remedy}")
        return tuple(found)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.solved), *map(str, self.layers), *self.warnings])


def is_off(rate: float, wide: float) -> bool:
    """Whether a rate is more than a tenth away from that of a wide membrane."""
    return abs(rate - wide) > 0.1 * wide

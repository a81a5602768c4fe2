"""Figures of one network: accuracy, memory, operations, energy; and the baseline without spikes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikequant.measure import CMemory, EnergyPj, MemoryRow, flash_bits, memory_by_role, padded_flash_bytes, ram_bits


@dataclass(frozen=True, kw_only=True)
class LayerOperations:
    """Synaptic operations of one weighted layer, per sample (NeuroBench's definitions)."""

    layer: str
    effective_acs: float
    effective_macs: float
    dense: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """Figures of one network; operations and energy are per sample.

    Attributes:
        accuracy: share of samples that are classified right.
        memory: every stored number by layer and role, in true bits.
        operations: synaptic operations by layer.
        energy: three estimates from those operations and bits, in pJ.
        connection_sparsity: share of weights (codes) that are 0.
        activation_sparsity: share of zeros in what the spiking layers emitted.
        in_c: bytes of the arrays of the exported C; None for a network that is not frozen, or that does not lower.
    """

    accuracy: float
    memory: tuple[MemoryRow, ...]
    operations: tuple[LayerOperations, ...]
    energy: EnergyPj
    connection_sparsity: float
    activation_sparsity: float
    in_c: CMemory | None = None

    @property
    def flash_bytes(self) -> float:
        """Bytes of all that is fixed when the network is shipped, packed without a gap."""
        return flash_bits(self.memory) / 8

    @property
    def padded_flash_bytes(self) -> int:
        """The same when every array, and every row of a weight matrix, starts at a new byte."""
        return padded_flash_bytes(self.memory)

    @property
    def ram_bytes(self) -> float:
        """Bytes of all that the network writes while it runs: states and buffers."""
        return ram_bits(self.memory) / 8

    def by_role(self) -> dict[str, float]:
        """Bytes of each role, flash roles first."""
        return {role: bits / 8 for role, bits in memory_by_role(self.memory).items()}

    @property
    def effective_acs(self) -> float:
        """Accumulates, all layers."""
        return sum(row.effective_acs for row in self.operations)

    @property
    def effective_macs(self) -> float:
        """Multiply-accumulates, all layers."""
        return sum(row.effective_macs for row in self.operations)

    @property
    def dense(self) -> float:
        """Operations on hardware that cannot skip zeros, all layers."""
        return sum(row.dense for row in self.operations)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: every field, and the sums."""
        sums = ("flash_bytes", "padded_flash_bytes", "ram_bytes", "effective_acs", "effective_macs", "dense")
        return plain({**dataclasses.asdict(self), **{name: getattr(self, name) for name in sums}})


@dataclass(frozen=True, kw_only=True)
class AnnBaseline:
    """A network of the same layers without spikes and time, at the same weight bits.

    Attributes:
        side: its figures; `activation_sparsity` is that of its activations.
        float_accuracy: accuracy of the same network before quantization.
        activation_bits: bits of every activation.
        epochs: epochs that it was trained for (float, then quantized).
        same, different: what is and what is not the same as in the spiking network, in words.
    """

    side: Side
    float_accuracy: float
    activation_bits: int
    epochs: tuple[int, int]
    same: tuple[str, ...]
    different: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of samples that are classified right, quantized."""
        return self.side.accuracy

    @property
    def weight_bits(self) -> dict[str, int]:
        """Bits of the weights by layer: those of the spiking network."""
        return {row.layer: row.bits for row in self.side.memory if row.role == "weight"}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return plain({**dataclasses.asdict(self), "side": self.side.to_dict()})


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """`record` as JSON takes it: tuples as lists, NaN as None, arrays left out."""
    return {key: _plain(value) for key, value in record.items() if not isinstance(value, np.ndarray)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value

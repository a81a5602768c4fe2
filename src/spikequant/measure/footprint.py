"""What an integer network stores (`law/footprint.py`, by its names here too), moves, and takes as C."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spikequant.law.footprint import INPUT_SCALE_BITS as INPUT_SCALE_BITS
from spikequant.law.footprint import STATE_ROLES as STATE_ROLES
from spikequant.law.footprint import delay_row as delay_row
from spikequant.law.footprint import integer_row as integer_row
from spikequant.law.footprint import network_memory as network_memory
from spikequant.law.footprint import parameter_rows as parameter_rows
from spikequant.law.footprint import readout_rows as readout_rows
from spikequant.law.footprint import spike_bits as spike_bits
from spikequant.law.footprint import state_rows as state_rows
from spikequant.law.network import IntNet
from spikequant.measure.cost import RAM_ROLES, MemoryRow, state_traffic_bits
from spikequant.readers.c99 import sizes


@dataclass(frozen=True, kw_only=True)
class CLayerMemory:
    """Bytes of one layer in the exported C: packed codes, other constants, state."""

    layer: str
    weights: int
    parameters: int
    state: int


@dataclass(frozen=True, kw_only=True)
class CMemory:
    """Bytes of the arrays of a network's C export, without machine code and self-test.

    Attributes:
        flash: constant arrays.
        ram: the state struct of one instance, everything in it.
        shared: of `ram`, values of one step that the layers share.
        layers: by layer; the rest of `ram` are scores and counters.
    """

    flash: int
    ram: int
    shared: int
    layers: tuple[CLayerMemory, ...]


def c_memory(net: IntNet) -> CMemory:
    """What `export(net, folder, format="c99")` takes: the numbers of its size report.

    Whole words and rows that begin at a byte, where `network_memory` counts bits.
    """
    found = sizes(net)
    layers = tuple(
        CLayerMemory(layer=name, weights=weights, parameters=parameters, state=state)
        for name, (weights, parameters, state) in found.layers.items()
    )
    return CMemory(flash=found.flash, ram=found.state, shared=found.shared, layers=layers)


def moved_bits(rows: Iterable[MemoryRow], *, steps: float) -> float:
    """RAM traffic of one sample: each state, spike, delayed value and sum is written and read once per step.

    A delay line moves one step of its values, not all it holds; the input is another's to write.

    >>> moved_bits([MemoryRow("lif", "membrane", 10, 8), MemoryRow("lif", "delay_line", 30, 1, rows=3)], steps=4)
    720
    """
    moving = [row for row in rows if row.role in RAM_ROLES and row.role not in ("input", "activation")]
    return steps * sum(state_traffic_bits(row.count // row.rows, steps=1, state_bits=row.bits) for row in moving)

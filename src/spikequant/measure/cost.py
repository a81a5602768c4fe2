"""Memory in bits and energy in picojoules, from plain counts.

Flash holds what does not change after training, RAM what changes at every step.  Energy is
an estimate for one chip of 2014, good for comparing networks and not for predicting a
battery; it is therefore always given as three lines (`energy_pj`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spikequant.law.errors import DataError
from spikequant.law.memory import FLASH_ROLES as FLASH_ROLES
from spikequant.law.memory import RAM_ROLES as RAM_ROLES
from spikequant.law.memory import MemoryRow as MemoryRow
from spikequant.law.memory import padded_row_bytes as padded_row_bytes

FP32_MAC_PJ = 4.6
FP32_AC_PJ = 0.9
INT32_MULTIPLY_PJ = 3.1
INT32_ADD_PJ = 0.1
SRAM_PJ_PER_32_BITS = 5.0


def memory_bits(rows: Iterable[MemoryRow]) -> int:
    """``sum count * bits``, flash and RAM together.

    >>> memory_bits([MemoryRow("fc1", "weight", 640, 4), MemoryRow("fc1", "membrane", 10, 16)])
    2720
    """
    return sum(row.total_bits for row in rows)


def flash_bits(rows: Iterable[MemoryRow]) -> int:
    """Bits of the rows whose role is in `FLASH_ROLES`.

    >>> flash_bits([MemoryRow("fc1", "weight", 640, 4), MemoryRow("fc1", "membrane", 10, 16)])
    2560
    """
    return memory_bits(row for row in rows if row.role in FLASH_ROLES)


def ram_bits(rows: Iterable[MemoryRow]) -> int:
    """Bits of the rows whose role is in `RAM_ROLES`.

    >>> ram_bits([MemoryRow("fc1", "weight", 640, 4), MemoryRow("fc1", "membrane", 10, 16)])
    160
    """
    return memory_bits(row for row in rows if row.role in RAM_ROLES)


def padded_flash_bytes(rows: Iterable[MemoryRow]) -> int:
    """Bytes of flash when every array, and every row of a weight matrix, starts at a new byte.

    >>> padded_flash_bytes([MemoryRow("fc1", "weight", 30, 3, rows=10), MemoryRow("fc1", "membrane", 10, 16)])
    20
    """
    return sum(row.padded_bytes for row in rows if row.role in FLASH_ROLES)


def memory_by_role(rows: Iterable[MemoryRow]) -> dict[str, int]:
    """Bits of each role that occurs, flash roles first.

    >>> memory_by_role([MemoryRow("fc1", "membrane", 10, 16), MemoryRow("fc1", "weight", 640, 4)])
    {'weight': 2560, 'membrane': 160}
    """
    rows = list(rows)
    bits = {role: memory_bits(row for row in rows if row.role == role) for role in FLASH_ROLES + RAM_ROLES}
    return {role: bits[role] for role in bits if any(row.role == role for row in rows)}


def ideal_bytes(count: int, bits: int) -> int:
    """Bytes of `count` numbers of `bits` bits packed without a gap: ``ceil(count * bits / 8)``.

    >>> ideal_bytes(30, 3)
    12
    """
    return -(-count * bits // 8)


@dataclass(frozen=True)
class EnergyPj:
    """Three estimates of the energy of the same operations, in picojoules (1e-12 J)."""

    fp_ops: float
    integer_ops: float
    integer_ops_and_traffic: float


def energy_pj(macs: float, acs: float, *, weight_bits_read: float, state_bits_moved: float) -> EnergyPj:
    """Energy of `macs` multiply-accumulates and `acs` accumulates, in pJ, 45 nm at 0.9 V.

    ===========================  =====================================================
    ``fp_ops``                   ``4.6 macs + 0.9 acs``
    ``integer_ops``              ``(3.1 + 0.1) macs + 0.1 acs``
    ``integer_ops_and_traffic``  the line above ``+ 5.0 (weight + state bits) / 32``
    ===========================  =====================================================

    The first line is the convention of the field, for comparison with papers.  The third is
    the only one in which fewer bits cost less: fetching a weight and moving a state cost far
    more than the addition.  `macs` and `acs` are effective operations, in which the firing
    rate is contained already; multiplying by a rate again is a frequent mistake.  Leak,
    comparison and reset of the neurons are not operations here; their traffic is.

    Constants, all from M. Horowitz, "Computing's energy problem (and what we can do about
    it)", ISSCC 2014: float32 multiply 3.7 pJ + add 0.9 pJ = 4.6 pJ; float32 add 0.9 pJ; int32
    multiply 3.1 pJ; int32 add 0.1 pJ; access to an 8 kB SRAM 10 pJ per 64 bits, that is
    5 pJ per 32 bits.

    Raises:
        DataError: a negative count.

    >>> energy_pj(0, 1000, weight_bits_read=4000, state_bits_moved=320)
    EnergyPj(fp_ops=900.0, integer_ops=100.0, integer_ops_and_traffic=775.0)
    """
    if min(macs, acs, weight_bits_read, state_bits_moved) < 0:
        raise DataError(
            f"counts are 0 or more, got macs={macs}, acs={acs}, "
            f"weight_bits_read={weight_bits_read}, state_bits_moved={state_bits_moved}"
        )
    integer = (INT32_MULTIPLY_PJ + INT32_ADD_PJ) * macs + INT32_ADD_PJ * acs
    traffic = SRAM_PJ_PER_32_BITS * (weight_bits_read + state_bits_moved) / 32
    return EnergyPj(
        fp_ops=FP32_MAC_PJ * macs + FP32_AC_PJ * acs,
        integer_ops=integer,
        integer_ops_and_traffic=integer + traffic,
    )


def weight_traffic_bits(effective_ops: float, *, weight_bits: int) -> float:
    """Bits of weights fetched: one weight for each effective operation.

    >>> weight_traffic_bits(1000, weight_bits=4)
    4000
    """
    return effective_ops * weight_bits


def state_traffic_bits(neurons: int, *, steps: int, state_bits: int) -> int:
    """Bits of state moved: each neuron's state is read and written once in every step.

    >>> state_traffic_bits(10, steps=1, state_bits=16)
    320
    """
    return 2 * neurons * steps * state_bits

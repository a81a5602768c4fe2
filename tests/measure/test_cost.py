from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.law.errors import DataError
from spikequant.measure import (
    FLASH_ROLES,
    RAM_ROLES,
    EnergyPj,
    MemoryRow,
    energy_pj,
    flash_bits,
    ideal_bytes,
    memory_bits,
    memory_by_role,
    padded_row_bytes,
    ram_bits,
    state_traffic_bits,
    weight_traffic_bits,
)

# 784 -> 100 -> 10 at 4-bit weights, 16-bit thresholds, 8-bit membranes, one spike bitmap.
NETWORK = [
    MemoryRow("fc1", "weight", 78_400, 4),
    MemoryRow("fc1", "threshold", 100, 16),
    MemoryRow("fc1", "membrane", 100, 8),
    MemoryRow("fc1", "spike_buffer", 100, 1),
    MemoryRow("fc2", "weight", 1_000, 4),
    MemoryRow("fc2", "threshold", 10, 16),
    MemoryRow("fc2", "membrane", 10, 8),
]


def test_memory_by_hand() -> None:
    assert memory_by_role(NETWORK) == {
        "weight": 317_600,
        "threshold": 1_760,
        "membrane": 880,
        "spike_buffer": 100,
    }
    assert flash_bits(NETWORK) == 319_360
    assert ram_bits(NETWORK) == 980
    assert memory_bits(iter(NETWORK)) == 320_340
    assert memory_by_role(iter(NETWORK)) == memory_by_role(NETWORK)
    assert memory_by_role([]) == {}


def test_every_role_is_flash_or_ram() -> None:
    assert not set(FLASH_ROLES) & set(RAM_ROLES)
    rows = [MemoryRow("l", role, 3, 5) for role in FLASH_ROLES + RAM_ROLES]
    assert flash_bits(rows) + ram_bits(rows) == memory_bits(rows) == 15 * len(rows)


@pytest.mark.parametrize(
    ("role", "count", "bits", "message"),
    [
        ("weights", 1, 4, "fc1: unknown role 'weights'; expected one of weight, scale"),
        ("weight", -1, 4, "-1 numbers of 4 bits"),
        ("weight", 1, 0, "of 0 bits"),
        ("weight", 1, 65, "of 65 bits"),
    ],
)
def test_rows_are_checked(role: str, count: int, bits: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        MemoryRow("fc1", role, count, bits)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 16), st.sampled_from([8, 16, 32]))
def test_padded_rows_never_save_memory(rows: int, per_row: int, bits: int, word_bits: int) -> None:
    padded = padded_row_bytes(rows, per_row, bits=bits, word_bits=word_bits)
    assert padded >= ideal_bytes(rows * per_row, bits)
    assert padded <= (rows * per_row * bits + rows * (word_bits - 1)) / 8
    if per_row * bits % word_bits == 0:
        assert padded * 8 == rows * per_row * bits


@given(st.integers(1, 50), st.integers(1, 8))
def test_ideal_bytes_is_what_packing_takes(count: int, bits: int) -> None:
    stream = np.ones(count * bits, np.uint8)
    assert ideal_bytes(count, bits) == len(np.packbits(stream))


def test_words_are_whole_bytes() -> None:
    with pytest.raises(DataError, match="got 12 bits"):
        padded_row_bytes(1, 1, bits=4, word_bits=12)


def test_energy_by_hand() -> None:
    energy = energy_pj(100, 1_000, weight_bits_read=1_100 * 4, state_bits_moved=2 * 110 * 4 * 8)
    assert energy.fp_ops == pytest.approx(460 + 900)
    assert energy.integer_ops == pytest.approx(320 + 100)
    assert energy.integer_ops_and_traffic == pytest.approx(420 + 5 * (4_400 + 7_040) / 32)
    assert weight_traffic_bits(1_100, weight_bits=4) == 4_400
    assert state_traffic_bits(110, steps=4, state_bits=8) == 7_040
    assert energy_pj(0, 0, weight_bits_read=0, state_bits_moved=0) == EnergyPj(0.0, 0.0, 0.0)


def test_only_traffic_sees_the_bits() -> None:
    four, eight = (energy_pj(0, 1_000, weight_bits_read=1_000 * b, state_bits_moved=0) for b in (4, 8))
    assert four.integer_ops == eight.integer_ops
    assert four.integer_ops_and_traffic < eight.integer_ops_and_traffic


def test_one_memory_access_is_fifty_additions() -> None:
    addition = energy_pj(0, 1, weight_bits_read=0, state_bits_moved=0).integer_ops
    access = energy_pj(0, 0, weight_bits_read=32, state_bits_moved=0).integer_ops_and_traffic
    assert access / addition == pytest.approx(50)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(DataError, match="acs=-1"):
        energy_pj(0, -1, weight_bits_read=0, state_bits_moved=0)

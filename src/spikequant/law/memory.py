"""Stored numbers: how many, of which role, at how many bits.

Flash holds what does not change after training, RAM what changes at every step.
"""

from __future__ import annotations

from dataclasses import dataclass

from spikequant.law.errors import DataError

FLASH_ROLES = ("weight", "scale", "threshold", "reset", "bias", "leak", "codebook")
"""Roles of numbers that are fixed when the network is shipped."""
RAM_ROLES = (
    "membrane",
    "current",
    "refractory",
    "adaptive_threshold",
    "spike_buffer",
    "delay_line",
    "readout",
    "input",
    "activation",
)
"""Roles of numbers that the network writes while it runs: states, and buffers of input, spikes and results."""


@dataclass(frozen=True)
class MemoryRow:
    """`count` numbers of one role in one layer, `bits` each, in `rows` rows of one length.

    Raises:
        DataError: an unknown role, a negative count, a width outside 1 to 64, rows of different length.

    >>> MemoryRow("fc1", "weight", count=640, bits=4).total_bits
    2560
    >>> MemoryRow("fc1", "weight", count=30, bits=3, rows=10).padded_bytes
    20
    """

    layer: str
    role: str
    count: int
    bits: int
    rows: int = 1

    def __post_init__(self) -> None:
        if self.role not in FLASH_ROLES + RAM_ROLES:
            raise DataError(
                f"{self.layer}: unknown role {self.role!r}; expected one of {', '.join(FLASH_ROLES + RAM_ROLES)}"
            )
        if self.count < 0 or not 1 <= self.bits <= 64:
            raise DataError(f"{self.layer}: {self.count} numbers of {self.bits} bits; expected 0 or more of 1 to 64")
        if self.rows < 1 or self.count % self.rows:
            raise DataError(f"{self.layer}: {self.count} numbers do not fill {self.rows} rows of one length")

    @property
    def total_bits(self) -> int:
        """``count * bits``."""
        return self.count * self.bits

    @property
    def padded_bytes(self) -> int:
        """Bytes when every row starts at a new byte."""
        return padded_row_bytes(self.rows, self.count // self.rows, bits=self.bits)


def padded_row_bytes(rows: int, per_row: int, *, bits: int, word_bits: int = 8) -> int:
    """Bytes of a packed matrix whose every row starts at a new word.

    ``rows * ceil(per_row * bits / word_bits) * word_bits / 8``

    >>> padded_row_bytes(10, 3, bits=3), padded_row_bytes(10, 3, bits=3, word_bits=32)
    (20, 40)

    Raises:
        DataError: a word that is not a whole number of bytes.
    """
    if word_bits < 8 or word_bits % 8:
        raise DataError(f"a word is a whole number of bytes, got {word_bits} bits")
    return rows * -(-per_row * bits // word_bits) * (word_bits // 8)

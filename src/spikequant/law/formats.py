"""Integer formats: how many bits, signed or not, and which integers that allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import WidthError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class IntFormat:
    """The integers of a two's complement (or unsigned) word of `bits` bits.

    ``signed``: ``[-2^(b-1), 2^(b-1) - 1]``; ``narrow`` drops the lowest one, so that the
    range is symmetric; unsigned: ``[0, 2^b - 1]``.  ``multiple_of`` keeps every k-th
    integer only (Loihi's mixed-sign weights are even: ``multiple_of=2``).

    >>> IntFormat(bits=4).min, IntFormat(bits=4).max
    (-8, 7)
    >>> IntFormat(bits=4, narrow=True).min
    -7
    >>> IntFormat(bits=4, signed=False).max
    15
    """

    bits: int
    signed: bool = True
    narrow: bool = False
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise WidthError(f"a format of {self.bits} bits was asked for; widths go from 1 to 64 bits")
        if self.signed and self.narrow and self.bits == 1:
            raise WidthError("a signed narrow format of 1 bit holds only 0; use 2 bits or an unsigned format")
        if self.multiple_of < 1:
            raise WidthError(f"multiple_of must be at least 1, got {self.multiple_of}")

    @property
    def min(self) -> int:
        """Smallest integer of the format."""
        lowest = 0 if not self.signed else -(2 ** (self.bits - 1)) + int(self.narrow)
        return -(-lowest // self.multiple_of) * self.multiple_of

    @property
    def max(self) -> int:
        """Largest integer of the format."""
        highest: int = 2 ** (self.bits - int(self.signed)) - 1
        return highest // self.multiple_of * self.multiple_of

    def holds(self, values: IntArray | int) -> bool:
        """Whether every one of `values` is an integer of this format."""
        array = np.asarray(values)
        if array.size == 0:
            return True
        inside = int(array.min()) >= self.min and int(array.max()) <= self.max
        return inside and (self.multiple_of == 1 or not np.any(array % self.multiple_of))


def signed_bits_for(low: int, high: int) -> int:
    """Fewest two's complement bits that hold every integer of ``[low, high]``.

    >>> signed_bits_for(-8, 7), signed_bits_for(-9, 7), signed_bits_for(0, 0)
    (4, 5, 1)
    """
    return max(int(high).bit_length(), int(-low - 1).bit_length() if low < 0 else 0) + 1

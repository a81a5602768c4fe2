"""C types and literals of proven integers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CType:
    """A fixed-width integer type."""

    bits: int
    signed: bool

    @property
    def name(self) -> str:
        """Its name in C."""
        return f"{'int' if self.signed else 'uint'}{self.bits}_t"

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.bits // 8

    @property
    def numpy(self) -> str:
        """The same type in numpy."""
        return f"{'i' if self.signed else 'u'}{self.bytes}"


INT32, INT64, UINT8, UINT32 = CType(32, True), CType(64, True), CType(8, False), CType(32, False)


def holds(low: int, high: int, *, least: int = 8, signed: bool = False) -> CType:
    """The smallest type of at least `least` bits for every integer of ``[low, high]``.

    >>> holds(0, 255).name, holds(-1, 128).name, holds(0, 255, signed=True).name
    ('uint8_t', 'int16_t', 'int16_t')
    """
    for bits in (8, 16, 32, 64):
        if bits < least:
            continue
        if low >= 0 and high < 2**bits and not signed and (bits < 32 or high >= 2 ** (bits - 1)):
            return CType(bits, False)  # what is unsigned in 32 bits needs a temporary of 64
        if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1):
            return CType(bits, True)
    raise AssertionError(f"no C type holds {low} to {high}")  # excluded by the proof of widths


def local(low: int, high: int) -> CType:
    """Type of a temporary: int32 where it is proven, int64 otherwise."""
    return holds(low, high, least=32, signed=True)


def literal(value: int) -> str:
    """An integer constant; C has no negative ones, and the lowest of a type needs a detour.

    >>> literal(5), literal(-3), literal(2**40), literal(-2**31)
    ('5', '-3', 'INT64_C(1099511627776)', '(-2147483647 - 1)')
    """
    if value == -(2**31):
        return "(-2147483647 - 1)"
    if -(2**31) < value < 2**31:
        return str(value)
    if value == -(2**63):
        return "(-INT64_C(9223372036854775807) - 1)"
    return f"INT64_C({value})" if value >= 0 else f"(-INT64_C({-value}))"

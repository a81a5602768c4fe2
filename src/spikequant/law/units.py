"""Units of integer sums: the exact fractions that pooled counts are worth."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def common_unit(units: list[Fraction]) -> Fraction:
    """The largest unit of which all `units` are whole multiples.

    >>> common_unit([Fraction(1), Fraction(1, 4)])
    Fraction(1, 4)
    """
    unit = units[0]
    for other in units[1:]:
        numerator = np.gcd(unit.numerator * other.denominator, other.numerator * unit.denominator)
        unit = Fraction(int(numerator), unit.denominator * other.denominator)
    return unit

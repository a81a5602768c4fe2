"""Numbers as a reader sees them: units apart by a no-break space, a real minus, NaN in words."""

from __future__ import annotations

import math

NOT_MEASURED = "not measured"
ABSENT = "\u2013"  # there is nothing to measure
MINUS = "\u2212"
BYTES = ("B", "KiB", "MiB", "GiB")
JOULES = ("pJ", "nJ", "µJ", "mJ")
GAP = "\u00a0"  # keeps a number and its unit on one line


def percent(share: float, digits: int = 2) -> str:
    """A share of one as per cent.

    >>> percent(0.98056).replace(GAP, " "), percent(float("nan"))
    ('98.06 %', 'not measured')
    """
    return NOT_MEASURED if math.isnan(share) else f"{_signs(f'{100 * share:.{digits}f}')}{GAP}%"


def points(change: float, interval: float) -> str:
    """A change in points with half of its interval.

    >>> points(0.278, 0.94).replace(GAP, " "), points(-1.0, float("nan")).replace(GAP, " ").replace(MINUS, "-")
    ('+0.28 ± 0.94 points', '-1.00 points, interval not measured')
    """
    if math.isnan(change):
        return NOT_MEASURED
    text = _signs(f"{change + 0.0:+.2f}")
    if math.isnan(interval):
        return f"{text}{GAP}points, interval {NOT_MEASURED}"
    return f"{text}{GAP}±{GAP}{interval:.2f}{GAP}points"


def decimal(value: float, digits: int = 4) -> str:
    """A plain number; one too small for `digits` keeps two figures.

    >>> decimal(0.00349), decimal(0.000012).replace(MINUS, "-"), decimal(0.0), decimal(float("nan"))
    ('0.0035', '1.2e-05', '0', 'not measured')
    """
    if math.isnan(value):
        return NOT_MEASURED
    if value == 0:
        return "0"
    return _signs(f"{value:.{digits}f}" if abs(value) >= 0.5 * 10.0**-digits else f"{value:.1e}")


def times(ratio: float) -> str:
    """A ratio with two or three figures that mean something.

    >>> times(6.96), times(1.04), times(13.82), times(142.3)
    ('7.0', '1.04', '13.8', '142')
    """
    if not math.isfinite(ratio):
        return NOT_MEASURED
    return f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"


def size(octets: float) -> str:
    """Bytes in the largest binary unit that leaves at least one.

    >>> [size(n).replace(GAP, " ") for n in (0, 12.5, 2048, 3 * 2**20)]
    ['0 B', '12.5 B', '2.0 KiB', '3.0 MiB']
    """
    return _scaled(octets, 1024, BYTES)


def energy(picojoules: float) -> str:
    """Energy in the largest unit that leaves at least one.

    >>> [energy(e).replace(GAP, " ") for e in (0.5, 1234.0, 2.5e6)]
    ['0.5 pJ', '1.2 nJ', '2.5 µJ']
    """
    return _scaled(picojoules, 1000, JOULES)


def count(number: float) -> str:
    """A count with separators; the mean of counts is rounded to a whole one from 100 on.

    >>> count(107806.6), count(12.25), count(float("nan"))
    ('107,807', '12.2', 'not measured')
    """
    if math.isnan(number):
        return NOT_MEASURED
    return f"{number:,.0f}" if number >= 100 or float(number).is_integer() else f"{number:.1f}"


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    if math.isnan(value):
        return NOT_MEASURED
    exponent = 0
    while abs(value) >= step and exponent < len(units) - 1:
        value, exponent = value / step, exponent + 1
    whole = exponent == 0 and float(value).is_integer()
    return f"{value:,.{0 if whole else 1}f}{GAP}{units[exponent]}"


def _signs(text: str) -> str:
    return text.replace("-", MINUS)

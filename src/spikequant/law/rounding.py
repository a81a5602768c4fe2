"""Right shifts that name their rounding.

``shift_right(a, n, rounding)`` is ``a / 2^n`` brought back to an integer.  With
``q = floor(a / 2^n)`` and the remainder ``r = a - q * 2^n`` in ``[0, 2^n)``:

==============  ==================================================================
``floor``       ``q``
``toward_zero`` ``q``, plus 1 if ``a < 0`` and ``r > 0``
``half_up``     ``floor((a + 2^(n-1)) / 2^n)``: ties go up
``half_away``   nearest, ties away from zero
``half_even``   nearest, ties to the even integer
``stochastic``  ``floor((a + u) / 2^n)`` with ``u`` uniform on ``0 .. 2^n - 1``
==============  ==================================================================

The table at -2.5 ... 2.5 in steps of a half (`a` counts halves, so ``n = 1``):

>>> halves = np.arange(-5, 6)
>>> for name in ("floor", "toward_zero", "half_up", "half_away", "half_even"):
...     print(f"{name:12}", *(f"{int(v):2d}" for v in shift_right(halves, 1, name)))
floor        -3 -2 -2 -1 -1  0  0  1  1  2  2
toward_zero  -2 -2 -1 -1  0  0  0  1  1  2  2
half_up      -2 -2 -1 -1  0  0  1  1  2  2  3
half_away    -3 -2 -2 -1 -1  0  1  1  2  2  3
half_even    -2 -2 -2 -1  0  0  0  1  2  2  2

No rule is both translation-invariant and free of a dead band, which is why the rounding
of a state is a field of its neuron and chosen by `calibrate` (docs/adr/0002).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from spikequant.law.errors import WidthError
from spikequant.law.formats import IntArray

Rounding = Literal["floor", "toward_zero", "half_up", "half_away", "half_even", "stochastic"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
DETERMINISTIC_ROUNDINGS: tuple[Rounding, ...] = ROUNDINGS[:-1]
NOISE_BITS = 32
"""Bits of one word of rounding noise."""
MOST_SHIFT = 62
"""Longest right shift of a 64-bit word."""


def shift_right(a: IntArray, n: IntArray | int, rounding: Rounding, *, noise: IntArray | None = None) -> IntArray:
    """``a / 2^n`` as an integer under the named rounding; `n` may differ per element.

    `noise` is the 32-bit word per element that ``stochastic`` needs, an integer in
    ``[0, 2^32)``: its lowest ``n`` bits are added below the cut (``n <= 32``).

    Raises:
        WidthError: negative shift, shift beyond 62 bits, or missing noise.
    """
    a = np.asarray(a, dtype=np.int64)
    n = np.asarray(n, dtype=np.int64)
    if n.size and (int(n.min()) < 0 or int(n.max()) > MOST_SHIFT):
        raise WidthError(f"a right shift takes 0 to {MOST_SHIFT} bits, got {int(n.min())} to {int(n.max())}")
    one = np.int64(1)
    floor = a >> n
    remainder = a - (floor << n)
    half = np.where(n > 0, one << np.maximum(n - 1, 0), one)  # n == 0 leaves no remainder, so never a half
    if rounding == "floor":
        return floor
    if rounding == "toward_zero":
        return floor + ((a < 0) & (remainder > 0))
    if rounding == "half_up":
        return floor + (remainder >= half)
    if rounding == "half_away":
        return floor + np.where(a < 0, remainder > half, remainder >= half)
    if rounding == "half_even":
        even: IntArray = floor + ((remainder > half) | ((remainder == half) & ((floor & 1) == 1)))
        return even
    if rounding == "stochastic":
        return floor + (remainder + _lowest_bits(noise, n) >= (one << n))
    raise WidthError(f"unknown rounding {rounding!r}; expected one of {', '.join(ROUNDINGS)}")


def _lowest_bits(noise: IntArray | None, n: IntArray) -> IntArray:
    if noise is None:
        raise WidthError("stochastic rounding needs its noise words; pass noise= (see law/noise.py)")
    if n.size and int(n.max()) > NOISE_BITS:
        raise WidthError(f"stochastic rounding cuts at most {NOISE_BITS} bits, got {int(n.max())}")
    return np.asarray(noise, dtype=np.int64) & ((np.int64(1) << n) - 1)

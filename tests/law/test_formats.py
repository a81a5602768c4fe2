"""Integer formats against the definition of two's complement."""

from __future__ import annotations

import numpy as np
import pytest

from spikequant.law.errors import SpikequantError, WidthError
from spikequant.law.formats import IntFormat, signed_bits_for


@pytest.mark.parametrize("bits", range(1, 65))
def test_limits_are_those_of_the_word(bits):
    assert (IntFormat(bits=bits).min, IntFormat(bits=bits).max) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert (IntFormat(bits=bits, signed=False).min, IntFormat(bits=bits, signed=False).max) == (0, 2**bits - 1)
    if bits > 1:
        assert IntFormat(bits=bits, narrow=True).min == -IntFormat(bits=bits).max
    assert IntFormat(bits=bits, signed=False, narrow=True).min == 0


@pytest.mark.parametrize("fmt", [IntFormat(bits=4), IntFormat(bits=4, narrow=True), IntFormat(bits=3, signed=False)])
def test_holds_is_membership(fmt):
    inside = set(range(fmt.min, fmt.max + 1))
    for value in range(-20, 21):
        assert fmt.holds(value) == (value in inside)
        assert fmt.holds(np.array([fmt.min, value, fmt.max])) == (value in inside)
    assert fmt.holds(np.array([], dtype=np.int64))


def test_multiples_only():
    loihi = IntFormat(bits=9, multiple_of=2)
    assert (loihi.min, loihi.max) == (-256, 254)
    assert loihi.holds(np.array([-256, 0, 254]))
    assert not loihi.holds(3)
    thirds = IntFormat(bits=4, multiple_of=3)
    assert [v for v in range(-8, 8) if thirds.holds(v)] == [-6, -3, 0, 3, 6]
    assert (thirds.min, thirds.max) == (-6, 6)


def test_widest_values_do_not_overflow():
    assert IntFormat(bits=64).holds(np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max]))
    assert not IntFormat(bits=63).holds(np.array([np.iinfo(np.int64).max]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bits": 0}, "a format of 0 bits was asked for; widths go from 1 to 64 bits"),
        ({"bits": 65}, "a format of 65 bits was asked for; widths go from 1 to 64 bits"),
        ({"bits": 1, "narrow": True}, "a signed narrow format of 1 bit holds only 0; use 2 bits or an unsigned format"),
        ({"bits": 4, "multiple_of": 0}, "multiple_of must be at least 1, got 0"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(WidthError) as caught:
        IntFormat(**options)
    assert str(caught.value) == text
    assert isinstance(caught.value, SpikequantError)
    assert isinstance(caught.value, ValueError)


def test_fewest_bits_by_search():
    for low in range(-40, 1):
        for high in range(0, 41):
            bits = signed_bits_for(low, high)
            assert IntFormat(bits=bits).min <= low
            assert IntFormat(bits=bits).max >= high
            if bits > 1:
                assert IntFormat(bits=bits - 1).min > low or IntFormat(bits=bits - 1).max < high
    assert signed_bits_for(3, 5) == 4
    assert signed_bits_for(-9, -5) == 5

"""Qi.f against exact fractions: every format up to 8 bits, and the wide ones that float32 cannot hold."""

from fractions import Fraction
from math import floor

import pytest
import torch

from spikequant.law.errors import PlanError
from spikequant.quantizers import FixedPoint


def oracle(x, i, f, rule, u=0):
    eps = Fraction(1, 2**f)
    code = floor(Fraction(x) / eps + {"TR": 0, "RN": Fraction(1, 2), "SR": Fraction(u)}[rule])
    return min(max(code, -(2 ** (i + f - 1))), 2 ** (i + f - 1) - 1)


@pytest.mark.parametrize("rule", ["TR", "RN", "SR"])
@pytest.mark.parametrize(("i", "f"), [(i, f) for i in range(1, 5) for f in range(5)])
def test_all_three_rules_as_the_paper_writes_them(rule, i, f):
    q = FixedPoint(f"Q{i}.{f}", rule)
    x = torch.arange(-320, 321) / 32
    codes = q.codes(x, q.fit(x), noise=torch.full_like(x, 0.25))
    assert codes.tolist() == [oracle(v, i, f, rule, 0.25) for v in x.tolist()]
    assert q.bits == i + f
    assert len(q.levels) == 2**q.bits


def test_the_formats_of_the_paper():
    q = FixedPoint("Q1.4")
    assert (q.bits, q.levels[0] / 16, q.levels[-1] / 16) == (5, -1.0, 0.9375)
    membrane = FixedPoint("Q11.16")
    assert (membrane.bits, membrane.levels[0] / 2**16) == (27, -1024)


def test_a_format_wider_than_float32_keeps_every_integer():
    q = FixedPoint("Q11.16", "TR")
    x = torch.tensor([-65.0, -40.123456, 1e9, -1e9], dtype=torch.float64)
    codes = q.codes(x, q.fit(x))
    assert codes.dtype == torch.float64
    assert codes.tolist() == [oracle(v, 11, 16, "TR") for v in x.tolist()]
    assert q.codes(torch.tensor([1e9]), q.fit(torch.ones(1))).item() == 2**26 - 1


@pytest.mark.parametrize("fraction", [0, 8, 31])
def test_32_bits(fraction):
    q = FixedPoint(f"Q{32 - fraction}.{fraction}")
    x = torch.tensor([1e10, -1e10])
    assert q.codes(x, q.fit(x)).tolist() == [2**31 - 1, -(2**31)]


def test_unsigned():
    q = FixedPoint("UQ0.8")
    x = torch.tensor([-0.5, 0.5, 1.0])
    assert not q.signed
    assert q.codes(x, q.fit(x)).tolist() == [0.0, 128.0, 255.0]


def test_papers_names_are_our_names():
    assert FixedPoint("Q1.4", rounding="TR") == FixedPoint("Q1.4", rounding="floor")
    assert [FixedPoint("Q1.4", r).rounding for r in ("TR", "RN", "SR")] == ["floor", "half_up", "stochastic"]


def test_gradient_stops_outside():
    q = FixedPoint("Q1.4", "TR")
    x = torch.tensor([-2.0, 0.3, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad((q.codes(x, q.fit(x)) * q.fit(x)).sum(), x)
    assert gradient.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("text", ["1.4", "Q1,4", "Q-1.4", "Q0.0", "Q20.20", "SQ1.4", "Q1.4 ", 5])
def test_refused_formats(text):
    with pytest.raises(PlanError, match=r"expected 'Qi.f' or unsigned 'UQi.f' with i \+ f from 1 to 32"):
        FixedPoint(text)


def test_refused_rounding():
    with pytest.raises(PlanError, match="fixed_point: rounding is 'XX'; expected one of 'floor'"):
        FixedPoint("Q1.4", rounding="XX")

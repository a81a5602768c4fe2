"""The rules' equations on real numbers, their landing on the grid, and that each rounding does what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.learn.networks import images, tiny

from spikequant import learn
from spikequant.law.errors import PlanError
from spikequant.law.ops import IntOps, RealOps
from spikequant.learn.numbers import numbers
from spikequant.learn.stdp import Rates, decayed_trace, land, rule_named

REAL: Any = RealOps()
W, X, POST, PRE, TOP, TARGET = 0.3, 0.6, 0.01, 0.002, 1.0, 0.4
RATES = Rates(post=POST, pre=PRE, w_max=TOP, target=TARGET)


@pytest.mark.parametrize(
    ("name", "on_post", "on_pre"),
    [
        ("post_pre", POST * X, -PRE * X),
        ("soft_bound", POST * X * (TOP - W), -PRE * X * W),
        ("target_trace", POST * (X - TARGET) * (TOP - W), None),
    ],
)
def test_the_equations(name: str, on_post: float, on_pre: float | None) -> None:
    rule = rule_named(name)
    w, x = np.float64(W), np.float64(X)
    assert float(rule.on_post(REAL, w, x, RATES)) == pytest.approx(on_post, rel=1e-12)
    assert (rule.on_pre is None) == (on_pre is None)
    if rule.on_pre is not None:
        assert float(rule.on_pre(REAL, w, x, RATES)) == pytest.approx(on_pre, rel=1e-12)


@pytest.mark.parametrize("name", sorted(learn.RULES))
def test_integers_change_by_what_the_equation_says(name: str) -> None:
    """Before it is rounded, the change of a code is the real change in units of the weight's LSB."""
    config = tiny(rule=name)
    n = numbers(config, learn.precision_of(weight=8, trace=8))
    rule = rule_named(name)
    real = Rates(post=config.nu_post, pre=config.nu_pre, w_max=config.w_max, target=config.target)
    for w, x in ((0, 255), (90, 200), (200, 31), (255, 128)):
        for change in (rule.on_post, rule.on_pre):
            if change is not None:
                fine = change(IntOps(), np.int64(w), np.int64(x), n.rates)
                wanted = change(REAL, np.float64(w * n.w_lsb), np.float64(x / 255), real)
                assert float(fine) / 2**n.fine_bits * n.w_lsb == pytest.approx(float(wanted), rel=3e-3, abs=1e-5)


def test_a_small_change_under_the_three_roundings() -> None:
    """A tenth of an LSB: truncation and nearest drop it, stochastic rounding keeps it on average."""
    ops, w = IntOps(), np.full(20_000, 5)
    noise = np.random.default_rng(0).integers(0, 2**32, 20_000)
    change = np.int64(round(0.1 * 2**32))

    def landed(rounding: Any) -> Any:
        return land(ops, w, change, fine_bits=32, w_max=15, rounding=rounding, noise=noise)

    assert set(landed("floor")) == set(landed("half_up")) == {5}
    assert set(landed("stochastic")) == {5, 6}
    assert landed("stochastic").mean() == pytest.approx(5.1, abs=0.01)
    assert set(land(ops, w, -change, fine_bits=32, w_max=15, rounding="floor", noise=noise)) == {4}
    assert set(land(ops, w, 99 * 2**32, fine_bits=32, w_max=15, rounding="floor", noise=noise)) == {15}


def test_a_trace_of_few_bits_sticks_unless_it_is_drawn() -> None:
    """Nearest: 7 * 0.951 rounds back to 7 for ever.  Truncation: gone in 7 steps.  Stochastic: tau of 20 steps."""
    noise = np.random.default_rng(0).integers(0, 2**32, (20, 20_000))

    def after(rounding: Any) -> Any:
        trace = np.full(20_000, 7)
        for words in noise:
            trace = decayed_trace(IntOps(), trace, 974, bits=10, rounding=rounding, noise=words)
        return trace.mean()

    assert after("half_up") == 7
    assert after("floor") == 0
    assert after("stochastic") == pytest.approx(7 / np.e, rel=0.02)


def test_a_rule_of_ones_own() -> None:
    rule = learn.Rule(name="only_up", on_post=lambda ops, w, trace, rates: ops.mul(trace, ops.const(rates.post)))
    learn.RULES["only_up"] = rule
    try:
        net = learn.Network(tiny(rule="only_up"), learn.precision_of(weight=6), engine="python")
        before = net.weights.copy()
        net.learn(images(4))
        assert np.any(net.weights != before)
    finally:
        del learn.RULES["only_up"]
    with pytest.raises(PlanError, match="'only_up'; expected one of post_pre, soft_bound, target_trace"):
        learn.Network(tiny(rule="only_up"), learn.precision_of(weight=6))


def test_weights_are_normalised() -> None:
    for precision in (learn.Precision(), learn.precision_of(weight=8)):
        net = learn.Network(tiny(), precision, engine="python")
        counts = net.learn(images(6)).counts
        sums = net.real_weights().sum(axis=0)[counts.sum(axis=0) > 0]
        assert len(sums)
        assert np.allclose(sums, 0.5 * 12, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neurons": 0}, "neurons is 0; expected a number above 0"),
        ({"inhibition": "none"}, "inhibition is 'none'; expected 'direct' or 'layer'"),
        ({"reset_mv": 9.0}, "reset_mv is 9.0; expected below threshold_mv"),
        ({"floor_mv": 1.0}, "floor_mv is 1.0; expected below 0, or None"),
        ({"levels": 300}, "levels is 300; expected at most 255"),
        ({"rule": "hebb"}, "STDP rule 'hebb'; expected one of"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        learn.Network(tiny(**changes))


def test_wrong_registers_are_refused() -> None:
    with pytest.raises(PlanError, match="bits is 0; expected an integer from 1 to 16"):
        learn.Register(0)
    with pytest.raises(PlanError, match="of at most 16 bits"):
        learn.Precision(weight=learn.Register(17))
    with pytest.raises(PlanError, match="rounding is 'up'"):
        learn.Register(4, "up")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="unknown role 'bias'"):
        learn.Precision.from_dict({"bias": None})
    far = learn.precision_of(weight=4, membrane_reach_mv=64.0, threshold_reach_mv=60.0)
    with pytest.raises(PlanError, match="rise to 66 mV, the membrane's register reaches 64 mV"):
        learn.Network(tiny(), far)

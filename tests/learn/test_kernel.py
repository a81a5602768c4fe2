"""The kernel against the law, read by `IntOps` and `RealOps`, over random configurations; and numba against Python."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.learn.networks import images, tiny
from tests.learn.reference import reference_run

from spikequant import learn
from spikequant.law.errors import PlanError
from spikequant.learn.config import Precision, Register
from spikequant.learn.stdp import RULES

numba_there = find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not numba_there, reason="numba is not installed")
ROUNDINGS = ("TR", "RN", "SR", "half_even", "toward_zero")


registers = st.none() | st.builds(Register, st.integers(2, 16), st.sampled_from(ROUNDINGS))


@st.composite
def configurations(draw: Any) -> tuple[learn.DiehlCook, Precision]:
    config = tiny(
        rule=draw(st.sampled_from(sorted(RULES))),
        trace=draw(st.sampled_from(["set", "add"])),
        inhibition=draw(st.sampled_from(["direct", "layer"])),
        one_spike=draw(st.booleans()),
        floor_mv=draw(st.sampled_from([None, -4.0])),
        refractory=draw(st.sampled_from([0, 1, 4])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
    given = {role: draw(registers) for role in ("weight", "membrane", "threshold", "trace")}
    few = given["threshold"] is not None and given["threshold"].bits <= 8  # of more, the common part leaves its word
    common = few and draw(st.booleans())
    return config, Precision(**given, common_threshold=common, threshold_reach_mv=draw(st.sampled_from([112.0, 3.0])))


@given(configurations())
@settings(max_examples=25)
def test_learning_and_inference_equal_the_law_bit_by_bit(case: tuple[learn.DiehlCook, Precision]) -> None:
    config, precision = case
    net = learn.Network(config, precision, engine="python")
    expected = reference_run(net, images(3), learns=True)
    activity = net.learn(images(3))
    assert np.array_equal(activity.counts, expected.counts)
    assert net.weights.dtype == expected.weights.dtype
    assert np.array_equal(net.weights, expected.weights)
    assert np.array_equal(net.adaptive, expected.adaptive)
    assert net.common == expected.common
    expected = reference_run(net, images(2, seed=1), learns=False)
    activity = net.infer(images(2, seed=1), records=True)
    assert np.array_equal(activity.counts, expected.counts)
    assert np.array_equal(activity.v, expected.v)
    assert np.array_equal(activity.r, expected.r)


def test_the_configurations_are_alive() -> None:
    """Equality of silent networks proves nothing: spikes, changed weights, raised thresholds in the default case."""
    net = learn.Network(tiny(), learn.precision_of(weight=6, membrane=8, threshold=8, trace=6), engine="python")
    before = net.weights.copy()
    activity = net.learn(images(3))
    assert activity.counts.sum() > 10
    assert np.mean(net.weights != before) > 0.5
    assert net.adaptive.sum() > 0
    assert net.weights.min() >= 0
    assert net.weights.max() <= 63


@needs_numba
@pytest.mark.parametrize(
    ("changes", "precision"),
    [
        ({}, Precision()),
        ({"inhibition": "layer", "trace": "add"}, learn.precision_of(weight=4, membrane=7, threshold=6, trace=5)),
        ({}, learn.precision_of(weight=4, threshold=5, common_threshold=True, threshold_reach_mv=3)),
        ({"rule": "target_trace"}, learn.precision_of(weight=8, trace=3, rounding="RN")),
    ],
)
def test_numba_and_python_agree_bit_by_bit(changes: dict[str, Any], precision: Precision) -> None:
    nets = [learn.Network(tiny(**changes), precision, engine=engine) for engine in ("numba", "python")]
    answers = [net.learn(images(4)) for net in nets]
    assert answers[0].counts.sum() > 5
    assert np.array_equal(answers[0].counts, answers[1].counts)
    assert np.array_equal(answers[0].order, answers[1].order)
    assert np.array_equal(nets[0].weights, nets[1].weights)
    assert np.array_equal(nets[0].adaptive, nets[1].adaptive)
    assert nets[0].common == nets[1].common
    assert (nets[0].common > 0) == precision.common_threshold


def test_a_common_part_makes_room_for_thresholds_that_rise_together() -> None:
    """The same network with a register of 10 bits for all of a threshold, and with 7 for its own part."""
    wide = learn.precision_of(threshold=10, threshold_reach_mv=64, rounding="SR")
    own = learn.precision_of(threshold=7, threshold_reach_mv=8, rounding="SR", common_threshold=True)
    nets = [
        learn.Network(tiny(tau_adapt_ms=1e7, adapt_mv=0.25), precision, engine="python") for precision in (wide, own)
    ]
    counts = [net.learn(images(40)).counts for net in nets]
    thresholds = [net.real_adaptive() for net in nets]
    assert nets[0].numbers.a_lsb == nets[1].numbers.a_lsb == 1 / 16
    assert nets[1].common > 2 * 8 << 15, "at least two sixteenths of 128 codes, little of which has decayed"
    assert thresholds[0].max() > 8.2, "beyond the reach of a register of 7 bits"
    assert np.array_equal(counts[0], counts[1])
    assert np.allclose(thresholds[0], thresholds[1], atol=0.1)


def test_a_common_part_needs_a_register() -> None:
    with pytest.raises(PlanError, match="common_threshold is True; expected False, or True with a Register"):
        Precision(weight=Register(4), common_threshold=True)


def test_a_common_part_beyond_its_word_is_refused() -> None:
    fine = learn.precision_of(threshold=16, threshold_reach_mv=10, common_threshold=True)
    with pytest.raises(PlanError, match=r"may rise to \d{3},\d{3} of their steps, its word holds 65,535"):
        learn.Network(learn.DiehlCook(), fine)
    assert learn.Network(learn.DiehlCook(), fine.replace(threshold=Register(12))).numbers.common_most < 2**32

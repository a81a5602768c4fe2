"""The lowered network equals the kernel on every spike and every state, and its file the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.learn.networks import FOUR, NEAR, images, tiny

from spikequant import learn
from spikequant.law.errors import MismatchError, NotFrozen, PlanError
from spikequant.law.network import IntNet
from spikequant.readers import golden


@given(
    bits=st.tuples(*[st.integers(1, 16)] * 4),
    rounding=st.sampled_from(["TR", "RN", "SR"]),
    inhibition=st.sampled_from(["direct", "layer"]),
    first=st.sampled_from([0, 1000]),
    common=st.booleans(),
)
@settings(max_examples=12)
def test_every_spike_and_state_equals_the_golden_model(
    bits: tuple[int, ...], rounding: str, inhibition: Any, first: int, common: bool
) -> None:
    common = common and bits[2] <= 8  # of more, the common part leaves its word
    reaches = NEAR | {"threshold_reach_mv": 3.0} if common else NEAR
    precision = learn.precision_of(
        weight=bits[0], membrane=bits[1], threshold=bits[2], trace=bits[3], rounding=rounding, **reaches
    ).replace(common_threshold=common)
    net = learn.Network(tiny(inhibition=inhibition), precision, engine="python")
    net.learn(images(3))
    report = learn.verify(net, learn.lower(net), images(3, seed=1), first=first)
    assert report.differences == 0
    assert report.states_compared == 2 * 25 * 3 * 5


@pytest.mark.parametrize("inhibition", ["direct", "layer"])
def test_verify_is_alive_and_names_the_first_difference(inhibition: Any) -> None:
    net = learn.Network(tiny(inhibition=inhibition), FOUR, engine="python")
    net.learn(images(6))
    lowered = learn.lower(net)
    assert learn.verify(net, lowered, images(4, seed=1)).spikes > 15
    net.adaptive[2] += 9
    net.weights[:, 2] = 15
    with pytest.raises(MismatchError, match="neurons: .* of neuron 2, sample 0, step .*differences in all"):
        learn.verify(net, lowered, images(4, seed=1))


def test_the_file_votes_as_the_network_does(tmp_path: Path) -> None:
    net = learn.Network(tiny(), FOUR, engine="python")
    x, y = images(12), np.arange(12) % 3
    net.learn(x)
    labels = learn.assign_labels(net.infer(x), y, classes=3)
    lowered = learn.lower(net, labels=labels, vectors=x[:2])
    lowered.save(tmp_path / "net.spq")
    again = IntNet.load(tmp_path / "net.spq")
    scores = golden.run(again, learn.input_spikes(net, x)).scores * again.decoder.scale
    assert scores.shape == (12, 3)
    expected = learn.votes(net.infer(x), labels, vote="proportional")
    assert np.allclose(scores, expected, rtol=0.02, atol=0.02)
    assert again.vectors is not None
    assert again.metadata["learn"]["config"]["neurons"] == 5


def test_a_float_network_has_no_integers_until_it_is_quantized() -> None:
    net = learn.Network(tiny(), engine="python")
    net.learn(images(6))
    with pytest.raises(NotFrozen, match="a float network has no integers"):
        learn.lower(net)
    small = learn.quantized(net, FOUR)
    assert learn.verify(small, learn.lower(small), images(3)).differences == 0
    assert small.weights.max() <= 15
    assert (
        np.abs(small.real_weights() - np.clip(net.real_weights(), 0, small.config.w_max)).max() <= small.numbers.w_lsb
    )
    assert np.abs(small.real_adaptive() - net.real_adaptive()).max() <= small.numbers.a_lsb
    own = learn.quantized(net, FOUR.replace(common_threshold=True))
    assert own.common > 0
    assert learn.verify(own, learn.lower(own), images(3)).differences == 0
    assert np.abs(own.real_adaptive() - net.real_adaptive()).max() <= own.numbers.a_lsb < small.numbers.a_lsb
    with pytest.raises(PlanError, match="quantized already"):
        learn.quantized(small, FOUR)
    with pytest.raises(PlanError, match="quantizes nothing"):
        learn.quantized(net, learn.Precision())

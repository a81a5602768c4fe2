"""The bounds over any order of delivery, against every input sequence and every order of small neurons."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.targets.networks import xylo_network

from spikequant.targets.order_free import decay, highest, lowest, network_reach, reach


def slow_decay(value, dash):
    """From the document: v - (v >> dash), a decrement of 0 becomes 1 toward zero."""
    less = value // 2**dash
    if less == 0 and value != 0:
        less = 1 if value > 0 else -1
    return value - less


@given(st.integers(-(2**15), 2**15 - 1), st.integers(0, 15))
def test_decay_is_the_document(value, dash):
    assert int(decay(np.array(value), np.array(dash))) == slow_decay(value, dash)


def test_decay_never_decreases():
    """What the closed forms rest on: every 16-bit value, every dash."""
    values = np.arange(-(2**15), 2**15)
    for dash in range(16):
        after = decay(values, np.array(dash))
        assert np.all(np.diff(after) >= 0)
        assert np.all(np.abs(after) <= np.abs(values))


@given(st.integers(0, 60), st.integers(0, 6))
def test_extremes_are_what_a_constant_drive_reaches(drive, dash):
    up = down = 0
    highs, lows = [0], [0]
    for _ in range(5000):
        highs.append(up + drive)
        up = slow_decay(up + drive, dash)
        lows.append(down - drive)
        down = slow_decay(down - drive, dash)
    assert max(highs) == int(highest(np.array(drive), np.array(dash)))
    assert min(lows) == int(lowest(np.array(-drive), np.array(dash)))


@pytest.mark.parametrize("seed", range(40))
def test_bounds_hold_for_every_order_and_input(seed):
    """Five steps of a neuron with three synapses: all 8^5 inputs by breadth-first search, all orders of a step."""
    dice = np.random.default_rng(seed)
    weights = [int(w) for w in dice.integers(-9, 10, 3)]
    params = {"leak": int(dice.integers(1, 4)), "leak_i": int(dice.integers(0, 4)), "theta": int(dice.integers(3, 40)),
              "v_bias": int(dice.integers(-3, 4))}  # fmt: skip
    positive, negative = sum(w for w in weights if w > 0), sum(w for w in weights if w < 0)
    bound = reach(np.array([positive]), np.array([negative]), params, most_spikes=31, bits=16)
    seen_current, seen_change, most_spikes = {0}, {0}, 0
    states = {(0, 0)}
    for _ in range(5):
        after = set()
        for i, v in states:
            for shown in itertools.product((0, 1), repeat=3):
                active = [w for w, s in zip(weights, shown, strict=True) if s]
                for order in itertools.permutations(active):
                    seen_current |= {i + part for part in itertools.accumulate(order)}
                current = slow_decay(i + sum(active), params["leak_i"])
                change = slow_decay(v, params["leak"]) - v + current
                seen_change |= {change, change + params["v_bias"]}
                value, spikes = v + change + params["v_bias"], 0
                while value >= params["theta"] and spikes < 31:
                    value, spikes = value - params["theta"], spikes + 1
                most_spikes = max(most_spikes, spikes)
                after.add((current, value))
        states = after
    assert min(seen_current) >= int(bound.current[0][0])
    assert max(seen_current) <= int(bound.current[1][0])
    assert min(seen_change) >= int(bound.change[0][0])
    assert max(seen_change) <= int(bound.change[1][0])
    assert most_spikes <= int(bound.spikes[0])


def test_a_proof_that_is_too_wide_would_refuse_everything():
    """Networks on both sides of the limit: some pass, some do not."""
    passed = [network_reach(xylo_network(seed, most_weight=60), 16)["hidden"].fits(16) for seed in range(40)]
    assert 5 < sum(passed) < 40

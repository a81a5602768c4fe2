"""Both forms of the one-state neuron are one: exactly in integers, to rounding in real numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.law.eligibility import STATES, charge, eligibility
from spikequant.law.neurons import prepare, step
from spikequant.law.ops import IntOps, RealOps
from spikequant.law.presets import single_state
from spikequant.law.spec import Leak

STEPS, INPUTS, NEURONS = 7, 5, 4


def both(ops: Any, weights: Any, bias: Any, leak: Any, leak_bits: int, spikes: Any) -> tuple[Any, Any, Any]:
    """Spikes of the form that learns, of the one that infers, and both membranes after the reset."""
    spec = single_state().replace(compare=">=", leak=Leak(form="multiply", bits=leak_bits, rounding="floor"))
    smallest = 1 if isinstance(ops, IntOps) else np.nextafter(0.0, 1.0)
    infer = prepare(ops, spec, {"leak": ops.const(leak), "bias": bias, "theta": ops.const(smallest)})
    learn = {"leak": ops.const(leak), "leak_bits": ops.const(leak_bits), "bias": bias}
    zeros = np.zeros(NEURONS, weights.dtype)
    p, state, v = np.zeros(INPUTS, weights.dtype), dict.fromkeys(STATES, zeros), {"v": zeros}
    fired, expected, membranes = [], [], []
    for t, x in enumerate(spikes):
        p = eligibility(ops, learn, p, x)
        state, s = charge(ops, learn, state, weights @ p, is_first=t == 0)
        v, out = step(ops, spec, infer, v, weights @ x)
        fired.append(s)
        expected.append(out)
        membranes.append((state["u"] * (1 - s), v["v"]))
    return np.array(fired), np.array(expected), np.array(membranes)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1), leak_bits=st.integers(1, 4), data=st.data(),
    density=st.floats(0.1, 0.9),
)  # fmt: skip
def test_integers_are_equal(seed: int, leak_bits: int, data: st.DataObject, density: float) -> None:
    leak = data.draw(st.integers(0, 2**leak_bits))
    draw = np.random.default_rng(seed)
    unit = 2 ** (leak_bits * (STEPS + 1))  # every product with the leak stays whole
    weights = draw.integers(-8, 9, (NEURONS, INPUTS)) * unit
    bias = draw.integers(-6, 3, NEURONS) * unit
    spikes = (draw.random((STEPS, INPUTS)) < density).astype(np.int64)
    # P is a count of spikes that leaks: it has fraction bits of its own, which the weights give back
    fired, expected, membranes = both(IntOps(), weights // unit, bias, leak, leak_bits, spikes * unit)
    assert np.array_equal(fired, expected)
    assert np.array_equal(membranes[:, 0], membranes[:, 1])


def test_the_neurons_of_the_property_are_alive() -> None:
    draw = np.random.default_rng(0)
    unit = 2 ** (3 * (STEPS + 1))
    weights, bias = draw.integers(-8, 9, (NEURONS, INPUTS)), draw.integers(-6, 3, NEURONS) * unit
    spikes = (draw.random((STEPS, INPUTS)) < 0.5).astype(np.int64) * unit
    fired, _, membranes = both(IntOps(), weights, bias, 7, 3, spikes)
    assert 0 < fired.mean() < 1
    assert (membranes < 0).any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), leak=st.floats(0.0, 1.0))
def test_reals_are_equal_to_rounding(seed: int, leak: float) -> None:
    draw = np.random.default_rng(seed)
    weights, bias = draw.normal(size=(NEURONS, INPUTS)), draw.normal(-0.5, 0.5, NEURONS)
    spikes = (draw.random((STEPS, INPUTS)) < 0.5).astype(np.float64)
    fired, expected, membranes = both(RealOps(), weights, bias, leak, 0, spikes)
    apart = np.abs(membranes[:, 0] - membranes[:, 1]).max()
    close = np.array_equal(fired, expected)
    assert not close or apart < 1e-12
    assert close  # a membrane within 1e-12 of zero does not occur among drawn numbers

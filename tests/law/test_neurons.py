"""Neurons by hand: a worked trace for every preset, and the rules of DESIGN section 1 that a step must keep.

Traces were worked on paper.  Unless said otherwise the leak is 1/2 and one membrane code
counts 2 accumulator LSBs, so that half a code is visible where it should be.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntFormat
from spikequant.law.neurons import prepare, step
from spikequant.law.noise import noise_words, step_key
from spikequant.law.ops import IntOps, RealOps
from spikequant.law.presets import PRESETS, lif_delayed_reset, lif_leak_first
from spikequant.law.rounding import DETERMINISTIC_ROUNDINGS
from spikequant.law.spec import Leak, NeuronSpec, StateFormat

OPS = IntOps()
V8 = StateFormat(format=IntFormat(bits=8), rounding="floor")
HALF = Leak(form="multiply", bits=1)


def trace(spec, params, inputs, *, start=None):
    """Stored states by name and outputs of one neuron over time, as plain integers."""
    ready = prepare(OPS, spec, {name: np.int64(value) for name, value in params.items()})
    state = {name: np.int64((start or {}).get(name, 0)) for name in spec.state_formats()}
    states, outputs = {name: [] for name in state}, []
    for t, x in enumerate(inputs):
        tick = np.int64((t + 1) % spec.adapt_every == 0)
        state, output = step(OPS, spec, ready, state, np.int64(x), tick=tick, noise=lambda role, t=t: noise_at(role, t))
        outputs.append(int(output))
        for name, value in state.items():
            states[name].append(int(value))
    return states, outputs


def noise_at(role, t):
    """Words of a lone neuron."""
    return noise_words(step_key(1, 0, role, t), np.array([0]), (1,))[0, 0]


def integers(name, **options):
    """A preset with widths: leak 1/2, 8-bit states, floor."""
    spec = PRESETS[name](**options)
    changes = {"v": V8}
    for leak in ("leak", "leak_i", "leak_a"):
        if getattr(spec, leak) is not None and getattr(spec, leak).form != "none":
            changes[leak] = HALF
    if spec.has_current:
        changes["i"] = V8
    if spec.has_adaptation:
        changes["a"] = StateFormat(format=IntFormat(bits=8, signed=False), rounding="floor")
    return spec.replace(compare=">=", **changes)


LOAD = {"leak": 1, "v_load": 2, "v_shift": 1}

TRACES = {
    # v = 4, 8, 12 -> fires, 2 stay; 6; 10 = theta fires
    "if": (
        integers("if"),
        {"theta": 10, "reset": 10, "v_load": 1, "v_shift": 0},
        [4] * 5,
        [4, 8, 2, 6, 0],
        [0, 0, 1, 0, 1],
    ),
    "if, zero": (
        integers("if", reset="zero"),
        {"theta": 10, "v_load": 1, "v_shift": 0},
        [4] * 4,
        [4, 8, 0, 4],
        [0, 0, 1, 0],
    ),
    # 8 -> code 4; 4 + 8 = 12 fires
    "lif_leak_first": (integers("lif_leak_first"), {"theta": 12, **LOAD}, [8] * 4, [4, 0, 4, 0], [0, 1, 0, 1]),
    # 7 -> code 3; 3 + 7 = 10 -> 5; 5 + 7 = 12 fires, 12 - 11 = 1 -> 0
    "lif_leak_first, subtract": (
        integers("lif_leak_first", reset="subtract"),
        {"theta": 12, "reset": 11, **LOAD},
        [7] * 3,
        [3, 5, 0],
        [0, 0, 1],
    ),
    # 8 * 1/2 = 4 -> code 2; 4 + 8 = 12 fires
    "lif_leak_last": (integers("lif_leak_last"), {"theta": 12, **LOAD}, [8] * 4, [2, 0, 2, 0], [0, 1, 0, 1]),
    # 4 + 8 = 12 fires, 6 stay stored; 6 + 8 - 12 = 2; 1 + 8 = 9 -> 4; 4 + 8 = 12
    "lif_delayed_reset": (
        integers("lif_delayed_reset"),
        {"theta": 12, "reset": 12, **LOAD},
        [8] * 5,
        [4, 6, 1, 4, 6],
        [0, 1, 0, 0, 1],
    ),
    # the stored 6 is cleared before it leaks: 0 + 8
    "lif_delayed_reset, zero": (
        integers("lif_delayed_reset", reset="zero"),
        {"theta": 12, **LOAD},
        [8] * 4,
        [4, 6, 4, 6],
        [0, 1, 0, 1],
    ),
    # i = 8, 4, 2, 1; v = 8; 4 + 4 = 8; 4 + 2 = 6; 3 + 1 = 4, theta 10 is not met
    "cuba_lif": (
        integers("cuba_lif"),
        {"theta": 10, "leak_i": 1, "i_load": 2, "i_shift": 1, **LOAD},
        [8, 0, 0, 0],
        [4, 4, 3, 2],
        [0, 0, 0, 0],
    ),
    # i = 16: v = 16 fires; i = 8 -> v = 8; i = 4 -> v = 4 + 4 = 8
    "cuba_lif fires": (
        integers("cuba_lif"),
        {"theta": 10, "leak_i": 1, "i_load": 2, "i_shift": 1, **LOAD},
        [16, 0, 0],
        [0, 4, 4],
        [1, 0, 0],
    ),
    # the bias goes through the current: i = 6, 3 + 6 = 9; v = 6, 3 + 9 = 12 fires
    "cuba_lif, bias": (
        integers("cuba_lif"),
        {"theta": 12, "bias": 6, "leak_i": 1, "i_load": 2, "i_shift": 1, **LOAD},
        [0, 0],
        [3, 0],
        [0, 1],
    ),
    # u = 8 - 10 = -2 -> code -1; -1 - 2 = -3 -> code -2 (floor); -2 + 6 = 4 > 0 fires
    "single_state": (integers("single_state"), {"theta": 1, "bias": -10, **LOAD}, [8, 8, 16], [-1, -2, 0], [0, 0, 1]),
    # a = 0: fires, a = 4; two steps without input; a = 1 >> 1 = 0: fires again
    "adaptive_lif": (
        integers("adaptive_lif", refractory=2),
        {"theta": 10, "adapt": 4, "a_shift": 0, "leak_a": 1, **LOAD},
        [10] * 4,
        [0, 0, 0, 0],
        [1, 0, 0, 1],
    ),
    # a = 4 -> 2: 10 < 12; a = 1: 5 + 10 = 15 >= 11 fires; a = 5 -> 2: 10 < 12
    "adaptive_lif, no refractory": (
        integers("adaptive_lif", refractory=0),
        {"theta": 10, "adapt": 4, "a_shift": 0, "leak_a": 1, **LOAD},
        [10] * 4,
        [0, 5, 0, 5],
        [1, 0, 1, 0],
    ),
    # 35 = 3 * 10 + 5; 5; 32 = 3 * 10 + 2; 47 - 3 * 10 = 17 (at most 3); 17 - 10 = 7
    "multi_spike_if": (
        integers("multi_spike_if", spikes_max=3),
        {"theta": 10, "reset": 10, "v_load": 1, "v_shift": 0},
        [35, 0, 27, 45, 0],
        [5, 5, 2, 17, 7],
        [3, 0, 3, 3, 1],
    ),
    # 8 -> 4; 4 + 8 -> 6; 6 + 8 -> 7; 7 + 8 = 15 -> 7 (floor)
    "leaky_integrator": (integers("leaky_integrator"), {**LOAD}, [8] * 4, [4, 6, 7, 7], [4, 6, 7, 7]),
}


@pytest.mark.parametrize("name", TRACES)
def test_worked_traces(name):
    spec, params, inputs, membrane, outputs = TRACES[name]
    states, got = trace(spec, params, inputs)
    assert got == outputs
    assert states["v"] == membrane


def test_every_preset_has_a_trace():
    assert {name.split(",")[0].split()[0] for name in TRACES} == set(PRESETS)


def test_the_other_states_of_the_worked_traces():
    spec, params, inputs, *_ = TRACES["cuba_lif"]
    assert trace(spec, params, inputs)[0]["i"] == [4, 2, 1, 0]
    spec, params, inputs, *_ = TRACES["adaptive_lif"]
    states, _ = trace(spec, params, inputs)
    assert states["a"] == [4, 2, 1, 4]
    assert states["r"] == [2, 1, 0, 2]
    spec, params, inputs, *_ = TRACES["lif_delayed_reset"]
    assert trace(spec, params, inputs)[0]["s"] == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_over_real_numbers(name):
    """`RealOps` runs the same program without widths: compare with the formula, in exact fractions."""
    spec = PRESETS[name]().replace(compare=">=")
    if spec.refractory:
        spec = spec.replace(refractory=0)
    params = {"theta": 1.0, "reset": 1.0, "leak": 0.5, "leak_i": 0.25, "leak_a": 0.5, "adapt": 0.25}
    state, inputs = {k: np.float64(0) for k in spec.state_formats()}, [0.5, 0.75, 0.0, 1.5, 0.25, 1.0]
    v = i = a = Fraction(0)
    fired = 0
    for x in inputs:
        state, output = step(RealOps(), spec, prepare(RealOps(), spec, params), state, np.float64(x))
        x, a = Fraction(x), a / 2
        i = i / 4 + x if spec.has_current else x
        leak = Fraction(1) if spec.leak.form == "none" else Fraction(1, 2)
        v = i + (v if name == "lif_leak_last" else v * leak) - (fired if name == "lif_delayed_reset" else 0)
        fired = 0
        for _ in range(spec.spikes_max):
            if spec.output == "spike" and v >= 1 + (a if spec.has_adaptation else 0):
                fired += 1
                v = (
                    v - 1
                    if spec.reset == "subtract" and name != "lif_delayed_reset"
                    else v
                    if name == "lif_delayed_reset"
                    else Fraction(0)
                )
        a += Fraction(fired, 4)
        v = v / 2 if name == "lif_leak_last" else v
        assert Fraction(float(state["v"])) == v
        assert Fraction(float(output)) == (v if spec.output == "state" else fired)


# -- rule 1: compare and reset are two numbers ------------------------------------------


def test_rule_1_compare_and_reset_are_two_numbers():
    spec, params = integers("if"), {"v_load": 1, "v_shift": 0}
    theta = Fraction(52, 5)  # 10.4 accumulator LSBs: fires from 11 on, subtracts 10
    two = {"theta": -(-theta.numerator // theta.denominator), "reset": round(theta), **params}
    assert (two["theta"], two["reset"]) == (11, 10)
    assert trace(spec, two, [10, 1, 10])[0]["v"] == [10, 1, 1]
    assert trace(spec, two, [10, 1, 10])[1] == [0, 1, 1]
    for one in (10, 11):  # one number for both: another spike train or another membrane
        assert trace(spec, {"theta": one, "reset": one, **params}, [10, 1, 10]) != trace(spec, two, [10, 1, 10])


@pytest.mark.parametrize("value", [9, 10, 11])
def test_the_comparator_is_greater_or_equal(value):
    assert trace(integers("if"), {"theta": 10, "reset": 10, "v_load": 1, "v_shift": 0}, [value])[1] == [
        int(value >= 10)
    ]


# -- rule 2: fraction bits, one narrowing per step ---------------------------------------

QUARTERS = {"leak": 3, "v_load": 4, "v_shift": 2}
EXACT = lif_leak_first().replace(leak=Leak(form="multiply", bits=2), v=V8)


def test_rule_2_the_leak_product_is_exact():
    """3 codes * 3/4 = 2.25 codes; with 0.75 of input that is 3 codes, not floor(2.25) + 0.75 = 2."""
    assert trace(EXACT, {"theta": 99, **QUARTERS}, [3], start={"v": 3}) == ({"v": [3]}, [0])
    assert trace(EXACT, {"theta": 12, **QUARTERS}, [3], start={"v": 3})[1] == [1]
    rounded = EXACT.replace(leak=Leak(form="multiply", bits=2, rounding="floor"))
    assert trace(rounded, {"theta": 99, **QUARTERS}, [3], start={"v": 3}) == ({"v": [2]}, [0])
    assert trace(rounded, {"theta": 12, **QUARTERS}, [3], start={"v": 3})[1] == [0]


@pytest.mark.parametrize("rounding", DETERMINISTIC_ROUNDINGS)
def test_rule_2_the_state_is_rounded_once(rounding):
    spec = EXACT.replace(v=StateFormat(format=IntFormat(bits=8), rounding=rounding))
    cut = {"floor": np.floor, "toward_zero": np.trunc, "half_up": lambda q: np.floor(q + 0.5), "half_even": np.rint}
    cut["half_away"] = lambda q: np.sign(q) * np.floor(abs(q) + 0.5)
    for code in range(-40, 41):
        for x in (-5, 0, 1, 2, 3):
            wanted = int(cut[rounding]((code * 3 + x) / 4))
            assert trace(spec, {"theta": 999, **QUARTERS}, [x], start={"v": code})[0]["v"] == [wanted]


def test_rule_2_a_leak_at_the_end_is_cut_together_with_the_store():
    """(2 codes + 3/4) * 3/4 = 2.0625 codes: floor gives 2; cut before, floor(2.75) * 3/4 = 1.5 gives 1."""
    spec = PRESETS["lif_leak_last"]().replace(leak=Leak(form="multiply", bits=2), v=V8)
    assert trace(spec, {"theta": 99, **QUARTERS}, [3], start={"v": 2})[0]["v"] == [2]
    early = spec.replace(order=("integrate", "narrow", "fire", "reset", "leak"))
    assert trace(early, {"theta": 99, **QUARTERS}, [3], start={"v": 2})[0]["v"] == [1]


def test_narrow_before_fire_compares_on_the_stored_grid():
    """11 LSBs are 2.75 codes: they meet theta = 11, but not once the register has floored them to 2 codes."""
    stored = EXACT.replace(leak=Leak(), order=("integrate", "fire", "reset"))
    before = EXACT.replace(leak=Leak(), order=("integrate", "narrow", "fire", "reset"))
    params = {"theta": 11, "v_load": 4, "v_shift": 2}
    assert trace(stored, params, [11]) == ({"v": [0]}, [1])
    assert trace(before, params, [11]) == ({"v": [2]}, [0])
    assert trace(before, params, [12]) == ({"v": [0]}, [1])
    saturated = before.replace(v=StateFormat(format=IntFormat(bits=3)))  # at most 3 codes = 12 LSBs
    assert trace(saturated, {**params, "theta": 13}, [100]) == ({"v": [3]}, [0])
    assert trace(saturated.replace(order=("integrate", "fire", "reset")), {**params, "theta": 13}, [100])[1] == [1]


def test_an_exact_leak_that_nothing_can_hold_is_refused():
    spec = EXACT.replace(order=("integrate", "leak", "fire", "reset"))
    with pytest.raises(
        Unsupported, match="after an exact leak of v only its store may follow; name the leak's rounding"
    ):
        trace(spec, {"theta": 11, **QUARTERS}, [1])


# -- rule 3: the rounding of the state is chosen, not assumed ----------------------------


def rate(rounding, bits, shift, theta, x):
    """Spikes per step of an unsigned membrane with leak 15/16; codes of 2^shift LSBs."""
    register = StateFormat(format=IntFormat(bits=bits, signed=False), rounding=rounding)
    spec = lif_leak_first().replace(leak=Leak(form="multiply", bits=4), v=register)
    params = {"theta": theta, "leak": 15, "v_load": 1 << shift, "v_shift": shift}
    return sum(trace(spec, params, x)[1]) / len(x)


def test_rule_3_four_bits_and_a_steady_input():
    """800 LSBs a step carry the true membrane toward 12800; cut at 1024 LSBs a fixed rule never gets to 11200."""
    x = [800] * 2000
    true = rate("half_even", 16, 4, 11_200, x)
    assert true > 0.02
    for fixed in ("toward_zero", "floor", "half_up", "half_even"):
        assert rate(fixed, 4, 10, 11_200, x) == 0.0
    assert 0.6 * true < rate("stochastic", 4, 10, 11_200, x) < 1.6 * true


def test_rule_3_four_bits_and_rare_inputs():
    """One code every 20 steps leaks away; rounded to nearest, nothing up to 8 codes ever does, and they add up."""
    x = ([1024] + [0] * 19) * 100
    assert rate("half_even", 16, 4, 8192, x) == 0.0
    assert rate("half_up", 4, 10, 8192, x) > 0.004
    assert rate("half_even", 4, 10, 8192, x) > 0.004
    assert rate("toward_zero", 4, 10, 8192, x) == 0.0
    assert rate("stochastic", 4, 10, 8192, x) == 0.0


def tail(form, rounding, start):
    """Where a membrane ends that only leaks by 1/16, and after how many steps."""
    leak = Leak(form=form, bits=4 if form == "multiply" else 0, rounding=rounding)
    spec = NeuronSpec(order=("leak", "integrate"), leak=leak, output="state", v=StateFormat(format=IntFormat(bits=16)))
    params = {"leak": 15 if form == "multiply" else 4, "v_load": 1, "v_shift": 0}
    values = trace(spec, params, [0] * 200, start={"v": start})[0]["v"]
    return values[-1], next(t for t, v in enumerate(values) if v == values[-1]) + 1


@pytest.mark.parametrize(
    ("form", "rounding", "up", "down"),
    [
        ("multiply", "toward_zero", (0, 74), (0, 74)),  # Loihi
        ("shift_forced", "floor", (0, 89), (0, 74)),  # Xylo
        ("shift", "floor", (15, None), (0, None)),  # Spiker+: sticks at +15
        ("multiply", "floor", (0, None), (-15, None)),  # sticks at -15
        ("multiply", "half_even", (8, None), (-8, None)),
    ],
)
def test_where_a_leak_of_one_sixteenth_ends(form, rounding, up, down):
    """The dead bands of real targets (targets.md, A.3)."""
    for start, (value, steps) in ((1000, up), (-1000, down)):
        got, when = tail(form, rounding, start)
        assert got == value
        assert steps is None or when == steps


# -- rule 10: a delayed reset uses the emitted spike --------------------------------------


def test_rule_10_a_delayed_reset_does_not_compare_again():
    """13 LSBs fire; stored as 1 code = 8 LSBs they would not fire a second time, yet the reset comes."""
    spec = lif_delayed_reset().replace(leak=Leak(), order=("integrate", "reset_delayed", "fire"), v=V8)
    params = {"theta": 12, "reset": 8, "v_load": 8, "v_shift": 3}
    states, spikes = trace(spec, params, [13, 0, 0])
    assert spikes == [1, 0, 0]
    assert states["v"] == [1, 0, 0]
    assert states["s"] == [1, 0, 0]


def test_rule_10_the_other_way_round():
    """A stored membrane that was rounded up to the threshold did not fire and is not reset."""
    register = StateFormat(format=IntFormat(bits=8), rounding="half_up")
    spec = lif_delayed_reset(reset="zero").replace(
        leak=Leak(), order=("reset_delayed", "integrate", "fire"), v=register
    )
    states, spikes = trace(spec, {"theta": 16, "v_load": 8, "v_shift": 3}, [13, 0, 0])
    assert spikes == [0, 1, 0]
    assert states["v"] == [2, 2, 0]


# -- named options ------------------------------------------------------------------------


def test_saturation_and_wrap():
    spec, params = integers("if"), {"theta": 10_000, "reset": 1, "v_load": 1, "v_shift": 0}
    assert trace(spec, params, [100, 100, -300, -300])[0]["v"] == [100, 127, -128, -128]
    wrapped = spec.replace(v=StateFormat(format=IntFormat(bits=8), overflow="wrap"))
    assert trace(wrapped, params, [100, 100, 128, 600])[0]["v"] == [100, -56, 72, -96]
    unsigned = spec.replace(v=StateFormat(format=IntFormat(bits=8, signed=False)))
    assert trace(unsigned, params, [-5, 300, -1])[0]["v"] == [0, 255, 254]
    ring = spec.replace(v=StateFormat(format=IntFormat(bits=8, signed=False), overflow="wrap"))
    assert trace(ring, params, [-5, 10])[0]["v"] == [251, 5]


def test_lower_bounds():
    order = ("integrate", "bound", "fire", "reset")
    params = {"theta": 10, "reset": 10, "floor": -3, "v_load": 1, "v_shift": 0}
    floor, zero = (integers("if").replace(order=order, lower=lower) for lower in ("floor", "zero"))
    assert trace(floor, params, [-2, -2, -2, 1])[0]["v"] == [-2, -3, -3, -2]
    assert trace(zero, params, [-3, -1, -2, 1])[0]["v"] == [-3, 0, -2, -1]


def test_fire_on_the_old_state():
    """QUANTISENC, ReckOn: the register decides, before this step's input is added."""
    spec = integers("lif_leak_first").replace(order=("fire", "reset", "leak", "integrate"))
    states, spikes = trace(spec, {"theta": 12, **LOAD}, [14, 0, 2])
    assert spikes == [0, 1, 0]
    assert states["v"] == [7, 0, 1]


def test_fire_or_leak_but_not_both():
    """Spiker+: a neuron that fired does not leak in that step."""
    spec = NeuronSpec(
        order=("integrate", "fire", "leak_unless_fired", "reset"), leak=Leak(form="shift"), reset="subtract", v=V8
    )
    params = {"theta": 12, "reset": 4, "leak": 1, "v_load": 1, "v_shift": 0}
    assert trace(spec, params, [11, 7]) == ({"v": [6, 9]}, [0, 1])


def test_refractory_modes():
    """Two steps without input: the membrane leaks on, or is held at 0."""
    spec = integers("if").replace(refractory=2)
    params = {"theta": 10, "reset": 6, "v_load": 1, "v_shift": 0}
    states, spikes = trace(spec, params, [12, 9, 9, 9])
    assert (states["v"], spikes, states["r"]) == ([6, 6, 6, 9], [1, 0, 0, 1], [2, 1, 0, 2])
    states, spikes = trace(spec.replace(refractory_mode="hold_zero"), params, [12, 9, 9, 9])
    assert (states["v"], spikes, states["r"]) == ([6, 0, 0, 9], [1, 0, 0, 0], [2, 1, 0, 0])


def test_the_threshold_decays_on_every_third_step():
    spec = integers("adaptive_lif", refractory=0).replace(adapt_every=3, adapt_in_reset=True, reset="subtract")
    params = {"theta": 10, "reset": 10, "adapt": 8, "a_shift": 1, "leak_a": 1, **LOAD}
    states, spikes = trace(spec, params, [10, 0, 0, 14, 0])
    assert states["a"] == [8, 8, 4, 12, 12]  # halved on the third step only; raised by the second spike
    assert spikes == [1, 0, 0, 1, 0]
    assert states["v"] == [0, 0, 0, 1, 0]  # 14 - (10 + 4 / 2) = 2 LSBs


def test_constant_leaks():
    params = {"leak": 3, "v_load": 1, "v_shift": 0}
    spec = NeuronSpec(order=("leak", "integrate"), leak=Leak(form="constant"), output="state", v=V8)
    assert trace(spec, params, [0] * 4, start={"v": 7})[0]["v"] == [4, 1, 0, 0]
    assert trace(spec, params, [0] * 4, start={"v": -7})[0]["v"] == [-4, -1, 0, 0]
    signed = spec.replace(leak=Leak(form="constant_signed"))
    assert trace(signed, params, [0] * 4, start={"v": 4})[0]["v"] == [1, -2, -5, -8]
    coarse = {"leak": 3, "v_load": 4, "v_shift": 2}  # a constant stands in accumulator LSBs: 8 - 3 = 5 -> 1 code
    assert trace(spec, coarse, [0], start={"v": 2})[0]["v"] == [1]


def test_two_shifts():
    spec = NeuronSpec(order=("leak", "integrate"), leak=Leak(form="two_shifts"), output="state", v=V8)
    assert trace(spec, {"leak": 1, "leak2": 2, "v_load": 1, "v_shift": 0}, [0, 0], start={"v": 22})[0]["v"] == [6, 2]


def test_a_leak_that_ends_on_its_own_grid_is_still_held_by_the_register():
    spec = NeuronSpec(
        order=("integrate", "narrow", "fire", "reset", "leak"),
        leak=Leak(form="two_shifts", rounding="half_up"),
        reset="zero",
        v=StateFormat(format=IntFormat(bits=4, signed=False)),
    )
    params = {"theta": 9, "leak": 1, "leak2": 1, "v_load": 1, "v_shift": 0}
    assert trace(spec, params, [1])[0]["v"] == [0]  # 1 - 1 - 1 = -1 is no unsigned code


def test_the_input_register():
    """11 LSBs of input are 2 codes of 4 (toward zero), and at most 3."""
    spec = integers("if").replace(
        order=("narrow_input", "integrate", "fire", "reset"),
        x=StateFormat(format=IntFormat(bits=3), rounding="toward_zero"),
    )
    params = {"theta": 99, "reset": 9, "v_load": 1, "v_shift": 0, "x_load": 4, "x_shift": 2}
    assert trace(spec, params, [11, -11, 50])[0]["v"] == [8, 0, 12]


def test_stochastic_needs_its_noise():
    spec = integers("if").replace(v=StateFormat(format=IntFormat(bits=8), rounding="stochastic"))
    params = {k: np.int64(v) for k, v in {"theta": 9, "reset": 9, "v_load": 2, "v_shift": 1}.items()}
    with pytest.raises(Unsupported, match="state v rounds stochastically: step\\(\\) needs noise="):
        step(OPS, spec, params, {"v": np.int64(0)}, np.int64(1))

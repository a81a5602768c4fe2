"""Proven widths (DESIGN rule 11): what `RangeOps` promises is never broken, word by word of the step."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tests.conformance.handmade import neuron

from spikequant.law.bounds import Interval, RangeOps, exact, prove_step
from spikequant.law.errors import WidthError
from spikequant.law.formats import IntFormat, signed_bits_for
from spikequant.law.neurons import prepare, step
from spikequant.law.ops import IntOps
from spikequant.law.presets import integrate_and_fire, lif_leak_first
from spikequant.law.products import Product
from spikequant.law.spec import Leak, NeuronSpec, StateFormat

WORDS = ("add", "sub", "mul", "shr", "clip", "ge", "where", "max", "dot")
V8 = StateFormat(format=IntFormat(bits=8))


def recording(base):
    """A reader that keeps every value that its words gave, in the order of the step."""

    class Recording(base):
        def __init__(self):
            super().__init__()
            self.seen = []

    def kept(word):
        def call(self, *arguments, **options):
            value = getattr(base, word)(self, *arguments, **options)
            self.seen.append((word, value))
            return value

        return call

    for word in WORDS:
        setattr(Recording, word, kept(word))
    return Recording


RecordingInts, RecordingRanges = recording(IntOps), recording(RangeOps)


def full_intervals(spec):
    """Every state that the registers can hold."""
    highs = {"r": spec.refractory, "s": spec.spikes_max}
    return {k: Interval(exact(f.min), exact(highs.get(k, f.max))) for k, f in spec.state_formats().items()}


def ranges_of_a_step(spec, params, low, high):
    """``(words with their intervals, interval of the output, of the states)``."""
    ops = RecordingRanges()
    known = {name: ops.const(value) for name, value in params.items()}
    noise = Interval(exact(0), exact(2**32 - 1))
    tick = Interval(exact(0), exact(1))
    ready = prepare(ops, spec, known)
    x = Interval(exact(low), exact(high))
    states, output = step(ops, spec, ready, full_intervals(spec), x, noise=lambda _: noise, tick=tick)
    return ops.seen, output, states


def inside(value, interval):
    """Whether every integer lies in its interval."""
    value = np.asarray(value)
    return bool(np.all(value >= interval.low) and np.all(value <= interval.high))


def adversarial(generator, low, high, size):
    """Extremes, their neighbours, and anything between."""
    extremes = np.array([low, high, min(low + 1, high), max(high - 1, low), min(max(0, low), high)], dtype=np.int64)
    return np.where(
        generator.random(size) < 0.5, generator.choice(extremes, size), generator.integers(low, high + 1, size)
    )


@pytest.mark.parametrize("first", range(0, 200, 100))
def test_no_value_ever_leaves_its_interval(first):
    """More than 10^5 neuron-steps of random specs, from any state, under extreme inputs."""
    batch, neurons, steps, violations, words = 60, 5, 3, 0, 0
    for seed in range(first, first + 100):
        generator = np.random.default_rng(seed)
        _, spec, params, drive = neuron(random.Random(seed), (neurons,), like_readout=seed % 10 == 0)
        low, high = -4 * drive, 8 * drive
        wanted, output_range, state_ranges = ranges_of_a_step(spec, params, low, high)
        highs = {"r": spec.refractory, "s": spec.spikes_max}
        state = {
            k: adversarial(generator, f.min, highs.get(k, f.max), (batch, neurons))
            for k, f in spec.state_formats().items()
        }
        for t in range(steps):
            ops = RecordingInts()
            x = adversarial(generator, low, high, (batch, neurons))
            noise = adversarial(generator, 0, 2**32 - 1, (batch, neurons))
            state, output = step(
                ops,
                spec,
                prepare(ops, spec, params),
                state,
                x,
                noise=lambda _, n=noise: n,
                tick=np.int64((t + seed) % 2),
            )
            assert [word for word, _ in ops.seen] == [word for word, _ in wanted]
            violations += sum(
                not inside(value, interval) for (_, value), (_, interval) in zip(ops.seen, wanted, strict=True)
            )
            violations += not inside(output, output_range)
            violations += sum(not inside(value, state_ranges[name]) for name, value in state.items())
            assert all(f.holds(state[k]) for k, f in spec.state_formats().items())
            state = {k: np.broadcast_to(v, (batch, neurons)) for k, v in state.items()}
            words += len(ops.seen)
    assert violations == 0
    assert words > 4000
    assert 2 * 100 * batch * neurons * steps >= 100_000


def test_the_promised_width_holds_every_intermediate():
    for seed in range(50):
        _, spec, params, drive = neuron(random.Random(seed), (4,))
        bounds = prove_step(spec, params, -drive, drive, check_reach=False)
        seen, output, _ = ranges_of_a_step(spec, params, -drive, drive)
        low = min(min(int(np.min(i.low)) for _, i in seen), 0)
        high = max(max(int(np.max(i.high)) for _, i in seen), 0)
        assert bounds.accumulator_bits >= signed_bits_for(low, high)
        assert (bounds.output_low, bounds.output_high) == (int(np.min(output.low)), int(np.max(output.high)))


class NaiveRanges(RangeOps):
    """Intervals without the refinement at `where(ge)`."""

    def _refined(self, value, condition, *, holds):
        return value


def reach(ops_class, steps):
    """Interval of a real soft-reset IF with inputs in [0, theta] after some steps, by joining."""
    spec, state = integrate_and_fire(), Interval(exact(0), exact(0))
    for _ in range(steps):
        ops = ops_class()
        params = {"theta": ops.const(10), "reset": ops.const(10)}
        new, _ = step(ops, spec, params, {"v": state}, ops.interval(0, 10))
        state = Interval(np.minimum(new["v"].low, state.low), np.maximum(new["v"].high, state.high))
    return int(state.low), int(state.high)


def test_refinement_is_needed():
    """``v - theta`` where ``v >= theta`` stays at least 0; an interval that forgets the condition diverges."""
    assert reach(RangeOps, 5) == reach(RangeOps, 50) == (0, 9)
    assert reach(NaiveRanges, 50)[0] == -500
    assert reach(NaiveRanges, 100)[0] == -1000


def test_refinement_of_a_threshold_per_neuron():
    ops = RangeOps()
    v, theta = ops.interval(np.array([-5, 0]), np.array([9, 30])), ops.const(np.array([4, 10]))
    after = ops.where(ops.ge(v, theta), ops.sub(v, theta), v)
    assert after.low.tolist() == [-5, 0]
    assert after.high.tolist() == [5, 20]
    known = ops.where(ops.ge(ops.interval(7, 9), ops.const(7)), ops.const(1), ops.const(2))
    assert (int(known.low), int(known.high)) == (1, 1)
    never = ops.where(ops.ge(ops.interval(0, 6), ops.const(7)), ops.const(1), ops.const(2))
    assert (int(never.low), int(never.high)) == (2, 2)


@pytest.mark.parametrize("word", ["add", "sub", "mul", "max"])
def test_words_by_brute_force(word):
    generator = np.random.default_rng(0)
    for _ in range(100):
        a, b = (np.sort(generator.integers(-9, 10, 2)) for _ in range(2))
        ops = RangeOps()
        got = getattr(ops, word)(ops.interval(*a), ops.interval(*b))
        values = [
            getattr(IntOps(), word)(np.int64(x), np.int64(y))
            for x in range(a[0], a[1] + 1)
            for y in range(b[0], b[1] + 1)
        ]
        assert (int(got.low), int(got.high)) == (min(values), max(values))


@pytest.mark.parametrize("rounding", ["floor", "toward_zero", "half_up", "half_away", "half_even", "stochastic"])
def test_shifts_by_brute_force(rounding):
    generator = np.random.default_rng(1)
    for _ in range(100):
        low, high = np.sort(generator.integers(-40, 41, 2))
        n = int(generator.integers(0, 5))
        ops = RangeOps()
        got = ops.shr(ops.interval(low, high), ops.const(n), rounding)
        for a in range(low, high + 1):
            for word in (0, 1, 7, 2**32 - 1):
                value = int(IntOps().shr(np.int64(a), np.int64(n), rounding, np.int64(word)))
                assert int(got.low) <= value <= int(got.high)


def test_dot_is_the_l1_bound():
    generator = np.random.default_rng(2)
    for pad in (0, 3, -2):
        codes = generator.integers(-7, 8, (4, 3, 3))
        product = Product(kind="conv", codes=codes, stride=(1,), padding=(1,), dilation=(1,), pad_code=np.full(3, pad))
        ops = RangeOps()
        bound = ops.dot(ops.interval(0, 1), product)
        reached = np.stack([product.apply(generator.integers(0, 2, (1, 3, 8))) for _ in range(300)])
        assert np.all(reached.min((0, 1, 3)) >= bound.low.reshape(-1))
        assert np.all(reached.max((0, 1, 3)) <= bound.high.reshape(-1))
    linear = Product(kind="linear", codes=np.array([[3, -2, 0], [1, 1, 1]]))
    ops = RangeOps()
    bound = ops.dot(ops.interval(-1, 4), linear)
    assert (bound.low.tolist(), bound.high.tolist()) == ([-3 - 8, -3], [12 + 2, 12])


# -- thresholds out of reach --------------------------------------------------------------


def ints(**values):
    return {name: np.asarray(value, dtype=np.int64) for name, value in values.items()}


def test_unreachable_thresholds_are_named():
    """Leak 1/2 and at most 8 LSBs of input: the membrane stays below 16."""
    spec = lif_leak_first().replace(leak=Leak(form="multiply", bits=1), v=V8)
    params = ints(theta=[12, 16, 17, 500], leak=1, v_load=2, v_shift=1)
    found = prove_step(spec, params, np.array([0]), np.array([8]))
    assert found.unreachable == (1, 2, 3)
    assert prove_step(spec, params, np.array([0]), np.array([8]), check_reach=False).unreachable == ()
    sums = np.array([2, 9, 20, 400])
    assert prove_step(spec, params, -sums, sums).unreachable == (0,)
    assert prove_step(spec, params, 0, 8).unreachable == (1, 2, 3)


def test_a_threshold_above_the_register_may_still_be_met():
    """The register stores at most 127, but 127 + 8 LSBs are compared before they are stored."""
    params = ints(theta=[127, 135, 136], reset=[1, 1, 1], v_load=1, v_shift=0)
    assert prove_step(integrate_and_fire().replace(v=V8), params, 0, 8).unreachable == (2,)
    narrowed = integrate_and_fire().replace(v=V8, order=("integrate", "narrow", "fire", "reset"))
    assert prove_step(narrowed, params, 0, 8).unreachable == (1, 2)


def test_a_neuron_called_unreachable_never_fires():
    dead = 0
    for seed in range(300, 400):
        _, spec, params, drive = neuron(random.Random(seed), (6,))
        params = {**params, "theta": params["theta"] * np.int64(6)}
        low, high = -drive // 4, drive // 4
        unreachable = prove_step(spec, params, low, high).unreachable
        if not unreachable:
            continue
        generator, ops = np.random.default_rng(seed), IntOps()
        state = {k: np.zeros((50, 6), np.int64) for k in spec.state_formats()}
        fired = np.zeros(6, dtype=np.int64)
        for t in range(60):
            x = np.where(generator.random((50, 6)) < 0.7, high, generator.integers(low, high + 1, (50, 6)))
            noise = generator.integers(0, 2**32, (50, 6))
            tick = np.int64((t + 1) % spec.adapt_every == 0)
            state, output = step(ops, spec, prepare(ops, spec, params), state, x, noise=lambda _, n=noise: n, tick=tick)
            state = {k: np.broadcast_to(v, (50, 6)) for k, v in state.items()}
            fired += np.broadcast_to(output, (50, 6)).sum(0)
        scalar = all(np.size(v) == 1 for v in params.values())
        quiet = range(6) if scalar else unreachable
        assert all(fired[k] == 0 for k in quiet), (seed, unreachable, fired)
        dead += len(unreachable)
    assert dead > 30


def test_a_readout_has_no_threshold_to_miss():
    spec = NeuronSpec(order=("integrate",), output="state", v=V8)
    found = prove_step(spec, ints(v_load=1, v_shift=0), -5, 5)
    assert (found.output_low, found.output_high, found.unreachable) == (-128, 127, ())


# -- refusals ----------------------------------------------------------------------------


def test_more_than_63_bits_are_refused():
    spec = integrate_and_fire().replace(v=StateFormat(format=IntFormat(bits=32)))
    params = ints(theta=10, reset=10, v_load=2**30, v_shift=30)
    assert prove_step(spec, params, -1, 1, check_reach=False).accumulator_bits == 63
    with pytest.raises(WidthError) as caught:
        prove_step(spec, ints(theta=10, reset=10, v_load=2**32, v_shift=32), -1, 1, where="fc1.neuron")
    assert str(caught.value) == (
        "fc1.neuron: an intermediate needs 65 bits, the golden model carries 63; "
        "use fewer fraction bits, fewer leak bits or narrower weights"
    )


def test_a_stochastic_cut_beyond_its_noise_is_refused():
    spec = integrate_and_fire().replace(v=StateFormat(format=IntFormat(bits=8), rounding="stochastic"))
    assert prove_step(spec, ints(theta=10, reset=10, v_load=2**32, v_shift=32), -1, 1, check_reach=False)
    with pytest.raises(WidthError, match="stochastic rounding cuts at most 32 bits, got 33"):
        prove_step(spec, ints(theta=10, reset=10, v_load=2**33, v_shift=33), -1, 1, check_reach=False)


def test_a_shift_beyond_the_word_is_refused():
    spec = integrate_and_fire().replace(v=V8)
    with pytest.raises(WidthError, match="a right shift takes 0 to 62 bits, got 63"):
        prove_step(spec, ints(theta=10, reset=10, v_load=1, v_shift=63), -1, 1, check_reach=False)


def test_a_state_without_width_is_refused():
    with pytest.raises(WidthError, match="state v has no integer format; prove a spec after its widths are chosen"):
        prove_step(integrate_and_fire(), ints(theta=10, reset=10), -1, 1)


def test_products_beyond_64_bits_are_bounded_and_not_an_overflow():
    ops = RangeOps()
    square = ops.mul(ops.interval(-(2**40), 2**40), ops.interval(-(2**40), 2**40))
    assert (int(square.low), int(square.high)) == (-(2**80), 2**80)

"""Golden = scalar oracle = `TorchOps` = compiled C on integer networks built by hand: neurons that no torch layer makes."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from tests.conformance.handmade import FORMS, ORDERS, net, neuron
from tests.conformance.native_side import compare
from tests.law.oracle import Oracle, differences

from spikequant.law.bounds import prove_step
from spikequant.law.neurons import prepare, step
from spikequant.law.noise import noise_words, step_key
from spikequant.law.ops import IntOps
from spikequant.nn.loop import run_over_time, torch_noise, zero_states
from spikequant.nn.surrogate import Surrogate
from spikequant.nn.torch_ops import TorchOps
from spikequant.readers import golden

FIRST_SAMPLE = 5
OPS = IntOps()


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_golden_equals_the_oracle(first):
    facts, kinds, fired, layers, values = Counter(), Counter(), 0, 0, 0
    for seed in range(first, first + 100):
        network, codes, found = net(seed)
        run = golden.run(network, codes, first_sample=FIRST_SAMPLE)
        wanted = Oracle(network, FIRST_SAMPLE).run(codes)
        wrong, where = differences(run, wanted)
        assert wrong == 0, f"seed {seed}: {wrong} values differ, first {where}"
        facts.update(wanted.facts)
        kinds.update(found)
        rates = [float((run.outputs[n.name] > 0).mean()) for n in network.neurons if n.spec.output == "spike"]
        fired, layers = fired + sum(rate > 0.02 for rate in rates), layers + len(rates)
        values += sum(v.size for s in run.states.values() for v in s.values())
    print(f"{values:,} states equal, {fired} of {layers} layers fired, {dict(facts)}\n{sorted(kinds.items())}")
    assert fired >= 0.65 * layers
    assert facts["equal"] > 100
    assert facts["clipped"] > 100
    assert facts["reset"] > 100
    every = {
        *(f"order:{k}" for k in ORDERS),
        *(f"leak:{f}" for f in FORMS),
        "bound",
        "narrow",
        "narrow_input",
        "narrow_current",
    }
    assert not every - set(kinds)


@pytest.mark.parametrize("first", [0, *(pytest.param(k, marks=pytest.mark.conformance) for k in range(100, 1000, 100))])
def test_c_equals_golden(first):
    cases = [
        (f"seed {seed}", network, [codes]) for seed in range(first, first + 100) for network, codes, _ in [net(seed)]
    ]
    tally = compare(cases, first_sample=FIRST_SAMPLE)
    print(tally)
    if not tally.networks:
        pytest.skip("no C compiler was found")
    assert tally.networks == 100
    assert tally.spikes > 5000


def int_loop(spec, params, x, seed, layer):
    """States and outputs of the golden ops over time."""
    ready, shape = prepare(OPS, spec, params), x.shape[1:]
    state = {name: np.zeros(shape, np.int64) for name in spec.state_formats()}
    samples = np.arange(FIRST_SAMPLE, FIRST_SAMPLE + x.shape[1])
    states, outputs = [], []
    for t, current in enumerate(x):

        def words(role, t=t):
            return noise_words(step_key(seed, layer, role, t), samples, shape[1:])

        tick = np.int64((t + 1) % spec.adapt_every == 0)
        state, output = step(OPS, spec, ready, state, current, noise=words, tick=tick)
        state = {name: np.broadcast_to(value, shape) for name, value in state.items()}
        states.append(state)
        outputs.append(np.broadcast_to(output, shape))
    return states, np.stack(outputs)


def torch_loop(spec, params, x, seed, layer, dtype):
    """The same through `TorchOps`, as floats that hold integers."""
    current = torch.from_numpy(x).to(dtype)
    ops = TorchOps(surrogate=Surrogate(), lsb=torch.ones(()), detach_reset=False, like=current)
    tensors = {name: torch.from_numpy(np.array(value)).to(dtype) for name, value in params.items()}
    seen = []
    noise = torch_noise(seed, layer, FIRST_SAMPLE, current.shape[1:], current.device)
    with torch.no_grad():
        outputs, _ = run_over_time(
            ops, spec, tensors, current, zero_states(spec, current[0]), noise_at=noise, watch=seen.append
        )
    return seen, outputs


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_torch_ops_equal_int_ops(first):
    spikes = floats = 0
    for seed in range(first, first + 100):
        dice = random.Random(1_000_000 + seed)
        _, spec, params, drive = neuron(dice, (5,))
        generator = np.random.default_rng(seed)
        x = generator.integers(-drive, 2 * drive + 1, (24, 3, 5))
        bits = prove_step(spec, params, -2 * drive, 2 * drive, check_reach=False).accumulator_bits
        if bits > 53:
            continue
        states, outputs = int_loop(spec, params, x, seed, 2)
        for dtype in (torch.float64, *((torch.float32,) if bits <= 24 else ())):
            seen, got = torch_loop(spec, params, x, seed, 2, dtype)
            assert np.array_equal(got.numpy(), outputs), (seed, dtype, spec)
            for t, wanted in enumerate(states):
                for name, value in wanted.items():
                    assert np.array_equal(seen[t][name].expand(value.shape).numpy(), value), (
                        seed,
                        dtype,
                        t,
                        name,
                        spec,
                    )
            floats += dtype == torch.float32
        spikes += int(outputs.sum())
    assert spikes > 1000
    assert floats > 30

"""Simulation = golden model = scalar oracle = compiled C, on random torch networks: every spike, every state, no tolerance.

The counts that the suite prints belong to the claim: equality of silent networks proves nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from tests.conformance.native_side import CTally, compare, longer
from tests.conformance.networks import make, quantized
from tests.law.oracle import Oracle, differences

import spikequant as sq
from spikequant.law.errors import WidthError
from spikequant.readers import golden

QUICK, CHUNK = 300, 50
SLOW, SLOW_CHUNK = 2000, 100
REFUSALS = ("can reach its threshold with any input", "stochastic rounding cuts at most", "integer gain is 0")


@dataclass
class Tally:
    """What was compared, and how alive it was."""

    networks: int = 0
    refused: int = 0
    neuron_steps: int = 0
    spikes: int = 0
    states: int = 0
    oracle_values: int = 0
    layers: int = 0
    live_layers: int = 0
    live_networks: int = 0
    neurons: int = 0
    neurons_fired: int = 0
    c: CTally = field(default_factory=CTally)
    facts: Counter = field(default_factory=Counter)
    features: Counter = field(default_factory=Counter)

    def add_run(self, net, run):
        """Count how many neurons fired, and whether some layer fires between 5 and 95 % of the time."""
        rates = [np.minimum(run.outputs[n.name], 1).mean((0, 1)) for n in net.neurons if n.spec.output == "spike"]
        self.layers += len(rates)
        live = [0.05 <= float(rate.mean()) <= 0.95 for rate in rates]
        self.live_layers += sum(live)
        self.live_networks += any(live)
        self.neurons += sum(rate.size for rate in rates)
        self.neurons_fired += sum(int((rate > 0).sum()) for rate in rates)

    def __str__(self):
        table = "\n".join(f"{count:6d}  {name}" for name, count in sorted(self.features.items()))
        return (
            f"{self.networks} networks ({self.refused} refused), {self.neuron_steps:,} neuron-steps, "
            f"{self.spikes:,} spikes, {self.states:,} states equal; "
            f"{self.oracle_values:,} values equal to the scalar oracle\n"
            f"alive: {self.live_networks} networks, {self.live_layers} of {self.layers} layers, "
            f"{self.neurons_fired:,} of {self.neurons:,} neurons fired; {dict(self.facts)}\n{self.c}\n{table}"
        )


def sweep(seeds, *, more=0):
    """Compare all four on every network of `seeds`; C and golden model on `more` inputs besides."""
    tally, for_c = Tally(), []
    for seed in seeds:
        case = make(seed)
        try:
            net = quantized(case)
        except WidthError as error:
            if not any(text in str(error) for text in REFUSALS):
                raise
            tally.refused += 1
            continue
        report = sq.verify(case.model, net, case.inputs, raise_on_difference=False)
        assert report.differences == 0, f"seed {seed}: {report.first}; {sorted(case.features)}"
        run = golden.run(net, net.vectors.inputs)
        wanted = Oracle(net).run(net.vectors.inputs)
        wrong, first = differences(run, wanted)
        assert wrong == 0, f"seed {seed}: {wrong} values differ, first {first}; {sorted(case.features)}"
        tally.networks += 1
        tally.neuron_steps += report.neuron_steps
        tally.spikes += report.spikes
        tally.states += report.states_compared
        tally.oracle_values += sum(o.size for o in run.outputs.values())
        tally.oracle_values += sum(v.size for s in run.states.values() for v in s.values())
        tally.add_run(net, run)
        tally.facts.update(wanted.facts)
        tally.features.update(case.features)
        codes = net.vectors.inputs
        for_c.append((f"seed {seed}", net, [codes, *(longer(net, codes, k) for k in range(more))]))
    tally.c = compare(for_c)
    return tally


def check_alive(tally):
    """The suite must have been able to see an error."""
    assert tally.refused <= 0.05 * (tally.networks + tally.refused)
    assert tally.live_networks >= 0.85 * tally.networks
    assert tally.live_layers >= 0.7 * tally.layers
    assert tally.neurons_fired >= 0.6 * tally.neurons
    assert 0.03 < tally.spikes / tally.neuron_steps < 0.7
    for fact in ("equal", "clipped", "reset"):
        assert tally.facts[fact] > 0, f"no {fact} among {tally.networks} networks"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("first", range(0, QUICK, CHUNK))
def test_simulation_golden_oracle_and_c_are_equal(first):
    tally = sweep(range(first, first + CHUNK))
    print(tally)
    check_alive(tally)


@pytest.mark.conformance
@pytest.mark.parametrize("first", range(QUICK, QUICK + SLOW, SLOW_CHUNK))
def test_two_thousand_networks(first):
    tally = sweep(range(first, first + SLOW_CHUNK), more=4)
    print(tally)
    check_alive(tally)


OFTEN, SOMETIMES = 20, 4
COMMON = """
family:flat family:image family:static family:join family:loop family:encoded
neuron:lif neuron:if neuron:cuba neuron:single neuron:adaptive neuron:multi neuron:special
order:leak_first order:leak_last order:delayed_reset reset:zero reset:subtract
weights:uniform weights:binary weights:ternary weights:power_of_two weights:fixed_point weights:lsq
weights_per_channel weights_per_tensor membrane:signed membrane:unsigned per-channel_values narrow_format
membrane_overflow:saturate membrane_overflow:wrap narrow_before_fire current_bits fraction_bits_asked
membrane_rounding:floor membrane_rounding:toward_zero membrane_rounding:half_up membrane_rounding:half_away
membrane_rounding:half_even membrane_rounding:stochastic readout:spikes readout:integrator readout:weights
input:spikes input:counts plan:weights plan:membranes depth_>=_4
"""
RARE = """
join:add join:iand join:and join:concat join:maximum join:currents loop:recurrent loop:feedback loop:delay
conv1d conv2d stride dilation groups delay batch_norm_1d batch_norm_2d normalize refractory reset:none
pool_currents:max pool_currents:average pool_spikes:max pool_spikes:average pool_spikes:functional
static:positive static:signed static:normalized static:spikes layout:batch_first layout:time_first
encoder:poisson encoder:latency threshold_bits bias_bits input_bits grid:symmetric grid:full_range
leak_rounding:None leak_rounding:floor leak_rounding:toward_zero leak_rounding:half_even current_rounding:stochastic
special:floor special:shift special:forced special:two_shifts special:constant special:spiker special:hold
special:value special:adapt_slow special:old_state
"""


def test_the_networks_cover_what_there_is():
    seen = Counter(feature.replace(" ", "_") for seed in range(QUICK) for feature in make(seed).features)
    for names, least in ((COMMON, OFTEN), (RARE, SOMETIMES)):
        assert not {name: seen[name] for name in names.split() if seen[name] < least}


def test_a_case_depends_on_its_seed_alone():
    one, two = make(11), make(11)
    assert one.plan == two.plan
    assert one.features == two.features
    assert torch.equal(one.inputs, two.inputs)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    assert make(12).plan != one.plan

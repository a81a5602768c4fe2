"""The neuron spec: what it refuses, and its round trip through JSON."""

from __future__ import annotations

import json
import random

import pytest
from tests.conformance.handmade import spec as random_spec

from spikequant.law.errors import SpikequantError, Unsupported
from spikequant.law.formats import IntFormat
from spikequant.law.presets import PRESETS
from spikequant.law.spec import PHASES, SPEC_VERSION, Leak, NeuronSpec, StateFormat

PLAIN = ("integrate", "fire", "reset")
V = StateFormat(format=IntFormat(bits=8))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"order": ("integrate", "spike")},
            "neuron spec: unknown phase 'spike'; expected some of " + ", ".join(PHASES),
        ),
        ({"reset": "half"}, "neuron spec: reset = 'half'; expected one of zero, subtract, value, none"),
        ({"compare": "<"}, "neuron spec: compare = '<'; expected one of >=, >"),
        ({"lower": "clip"}, "neuron spec: lower = 'clip'; expected one of none, floor, zero"),
        (
            {"refractory_mode": "sleep"},
            "neuron spec: refractory_mode = 'sleep'; expected one of ignore_input, hold_zero",
        ),
        ({"output": "voltage"}, "neuron spec: output = 'voltage'; expected one of spike, state"),
        (
            {"leak": Leak(form="exp")},
            "neuron spec: leak.form = 'exp'; expected one of none, multiply, shift, shift_forced",
        ),
        (
            {"leak": Leak(form="shift", rounding="up")},
            "neuron spec: leak.rounding = 'up'; expected one of floor, toward_zero",
        ),
        (
            {"leak": Leak(form="shift", rounding="stochastic")},
            "neuron spec: leak.rounding = 'stochastic'; expected one of floor",
        ),
        ({"leak_i": Leak(form="exp")}, "neuron spec: leak_i.form = 'exp'; expected one of none"),
        ({"leak_a": Leak(form="exp")}, "neuron spec: leak_a.form = 'exp'; expected one of none"),
        (
            {"v": StateFormat(format=IntFormat(bits=8), rounding="up")},
            "neuron spec: v rounds 'up' and overflows 'saturate'",
        ),
        (
            {"i": StateFormat(format=IntFormat(bits=8), overflow="clip")},
            "neuron spec: i rounds 'floor' and overflows 'clip'",
        ),
        ({"order": ("fire", "reset")}, "neuron spec: the order ('fire', 'reset') lacks the phase 'integrate'"),
        ({"order": ("integrate",), "reset": "none"}, "neuron spec: the order ('integrate',) lacks the phase 'fire'"),
        (
            {"order": ("integrate", "integrate", "fire", "reset")},
            "neuron spec: the order names 'integrate' more than once",
        ),
        (
            {"order": ("decay_current", *PLAIN)},
            "neuron spec: leak_i, 'decay_current' and 'add_current' belong together; name all or none",
        ),
        (
            {"leak_i": Leak()},
            "neuron spec: leak_i, 'decay_current' and 'add_current' belong together; name all or none",
        ),
        (
            {"leak_a": Leak()},
            "neuron spec: leak_a and the phase 'raise_threshold' belong together; name both or neither",
        ),
        (
            {"order": (*PLAIN, "raise_threshold")},
            "neuron spec: leak_a and the phase 'raise_threshold' belong together; name both or neither",
        ),
        (
            {"order": ("reset", "integrate", "fire")},
            "neuron spec: the phase 'reset' needs 'fire' before it; the order is ('reset', 'integrate', 'fire')",
        ),
        (
            {"order": ("integrate", "leak_unless_fired", "fire", "reset")},
            "the phase 'leak_unless_fired' needs 'fire' before it",
        ),
        (
            {"order": ("integrate", "raise_threshold", "fire", "reset"), "leak_a": Leak()},
            "the phase 'raise_threshold' needs 'fire' before it",
        ),
        (
            {"order": ("integrate", "raise_threshold"), "reset": "none", "output": "state", "leak_a": Leak()},
            "the phase 'raise_threshold' needs 'fire' before it",
        ),
        (
            {"spikes_max": 2},
            "neuron spec: several spikes a step subtract inside 'fire'; set reset='subtract', no reset phase",
        ),
        (
            {"spikes_max": 2, "order": ("integrate", "fire"), "reset": "zero"},
            "neuron spec: several spikes a step subtract inside 'fire'; set reset='subtract', no reset phase",
        ),
        (
            {"reset": "none"},
            "neuron spec: reset='none' with the reset phases ['reset']; exactly one belongs to a reset",
        ),
        (
            {"order": ("reset_delayed", *PLAIN)},
            "reset='zero' with the reset phases ['reset', 'reset_delayed']; exactly one belongs to a reset",
        ),
        (
            {"order": ("reset_delayed", *PLAIN), "reset": "none"},
            "reset='none' with the reset phases ['reset', 'reset_delayed']; exactly one belongs to a reset",
        ),
        (
            {"order": ("integrate", "fire")},
            "neuron spec: reset='zero' with the reset phases []; exactly one belongs to a reset",
        ),
        ({"lower": "floor"}, "neuron spec: lower='floor' and the phase 'bound' belong together"),
        (
            {"order": ("integrate", "bound", "fire", "reset")},
            "neuron spec: lower='none' and the phase 'bound' belong together",
        ),
        ({"order": ("narrow_current", *PLAIN)}, "the phase 'narrow_current' needs 'add_current' before it"),
        ({"order": ("decay_threshold", *PLAIN)}, "leak_a and the phase 'raise_threshold' belong together"),
        ({"x": StateFormat(format=IntFormat(bits=8))}, "neuron spec: the register x needs the phase 'narrow_input'"),
        (
            {"order": ("integrate",), "reset": "none", "output": "state", "refractory": 2},
            "neuron spec: output='state' stores no spike; drop refractory and 'reset_delayed'",
        ),
        (
            {"order": ("reset_delayed", "integrate"), "output": "state"},
            "neuron spec: output='state' stores no spike; drop refractory and 'reset_delayed'",
        ),
        ({"adapt_in_reset": True}, "neuron spec: adapt_in_reset without an adaptive threshold"),
        ({"fraction_bits": 33}, "neuron spec: fraction_bits = 33; expected 0 to 32"),
        ({"fraction_bits": -1}, "neuron spec: fraction_bits = -1; expected 0 to 32"),
        ({"spikes_max": 0}, "neuron spec: spikes_max = 0; expected 1 to 31"),
        (
            {"spikes_max": 32, "order": ("integrate", "fire"), "reset": "subtract"},
            "neuron spec: spikes_max = 32; expected 1 to 31",
        ),
        ({"refractory": -1}, "neuron spec: refractory -1 or adapt_every 1 out of range"),
        ({"refractory": 2**16 + 1}, "neuron spec: refractory 65537 or adapt_every 1 out of range"),
        ({"adapt_every": 0}, "neuron spec: refractory 0 or adapt_every 0 out of range"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(Unsupported) as caught:
        NeuronSpec(**{"order": PLAIN, "reset": "zero", **options})
    assert text in str(caught.value)
    assert isinstance(caught.value, SpikequantError)


def test_narrow_and_bound_may_come_twice():
    spec = NeuronSpec(
        order=("integrate", "bound", "narrow", "fire", "bound", "narrow", "reset"), reset="zero", lower="zero"
    )
    assert spec.order.count("narrow") == 2


def test_derived_facts():
    adaptive = PRESETS["adaptive_lif"]()
    assert adaptive.has_adaptation
    assert not adaptive.has_current
    assert adaptive.is_real
    assert list(adaptive.state_formats()) == ["v", "a", "r"]
    assert adaptive.state_formats()["r"] == IntFormat(bits=3, signed=False)  # counts down from 5
    assert list(PRESETS["cuba_lif"]().state_formats()) == ["v", "i"]
    assert list(PRESETS["lif_delayed_reset"]().state_formats()) == ["v", "s"]
    assert PRESETS["lif_delayed_reset"]().stores_spike
    assert not PRESETS["if"]().replace(v=V).is_real
    assert PRESETS["if"]().replace(v=V).state_formats() == {"v": IntFormat(bits=8)}
    assert V.bits == 8


def test_a_copy_is_checked_again():
    spec = PRESETS["if"]()
    assert spec.replace(spikes_max=1) == spec
    with pytest.raises(Unsupported, match="exactly one belongs to a reset"):
        spec.replace(reset="none")
    with pytest.raises(AttributeError):
        spec.reset = "zero"


@pytest.mark.parametrize("seed", range(200))
def test_round_trip_through_json(seed):
    _, spec = random_spec(random.Random(seed), like_readout=seed % 7 == 0)
    again = NeuronSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert isinstance(again.order, tuple)
    assert hash(again) == hash(spec)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(name):
    spec = PRESETS[name]()
    assert NeuronSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_unknown_fields_and_versions():
    record = PRESETS["if"]().to_dict()
    with pytest.raises(Unsupported, match="neuron spec: unknown field 'tau'; expected some of a, adapt_every"):
        NeuronSpec.from_dict({**record, "tau": 2.0})
    for version in (SPEC_VERSION + 1, "1", None):
        with pytest.raises(Unsupported, match=f"neuron spec: version {version!r}, this release reads {SPEC_VERSION}"):
            NeuronSpec.from_dict({**record, "version": version})
    for name in set(record) - {"version"}:
        without = {k: v for k, v in record.items() if k != name}
        with pytest.raises(Unsupported, match=f"neuron spec: the field '{name}' is missing"):
            NeuronSpec.from_dict(without)

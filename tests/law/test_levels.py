"""Membranes on a few levels: a trace by hand, against a table, what is refused, memory, the file."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.law.artifact import parse_bytes, to_bytes
from spikequant.law.errors import Unsupported
from spikequant.law.footprint import network_memory
from spikequant.law.formats import IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode
from spikequant.law.neurons import prepare, step
from spikequant.law.ops import IntOps
from spikequant.law.presets import integrate_and_fire
from spikequant.law.spec import NeuronSpec, StateFormat
from spikequant.readers.registry import verify_readers

V = StateFormat(format=IntFormat(bits=8), rounding="half_up", levels=4)
SPEC = integrate_and_fire().replace(v=V)
LEVELS, CUTS = [-20, 0, 15, 40], [-12, 9, 30]


def params(levels=LEVELS, cuts=CUTS, **more):
    found = {"theta": 60, "reset": 60, "v_load": 1, "v_shift": 0, "v_level0": levels[0], **more}
    for k, cut in enumerate(cuts, start=1):
        found |= {f"v_cut{k}": cut, f"v_rise{k}": levels[k] - levels[k - 1]}
    return {name: np.array(value) for name, value in found.items()}


def network(spec=SPEC, **changes):
    nodes = (
        InputNode(name="input", shape=(3,), format=IntFormat(bits=8), static=False),
        NeuronNode(
            name="lif", shape=(3,), inputs=(Edge("input"),), gains=(np.array(1),), spec=spec, params=params(**changes)
        ),
    )
    return IntNet(nodes=nodes, decoder=Decoder(name="spike_count", source="lif"), steps=5)


def test_a_trace_by_hand():
    ops, table = IntOps(), params()
    ready, state, seen = prepare(ops, SPEC, table), {"v": np.array(0)}, []
    for x in (8, 9, 14, 5, 10, 9, -127, 7, 8):  # 8 lies below the cut at 9, 15 + 14 below that at 30
        state, spike = step(ops, SPEC, ready, state, np.array(x))
        seen.append((int(state["v"]), int(spike)))
    assert seen == [(0, 0), (15, 0), (15, 0), (15, 0), (15, 0), (15, 0), (-20, 0), (-20, 0), (0, 0)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_words_are_a_table(data):
    low = sorted(data.draw(st.sets(st.integers(-100, 100), min_size=4, max_size=4)) | {0})[:5]
    spec = SPEC.replace(v=dataclasses.replace(V, levels=len(low)))
    cuts = sorted(data.draw(st.lists(st.integers(-120, 120), min_size=len(low) - 1, max_size=len(low) - 1)))
    ops = IntOps()
    ready = prepare(ops, spec, params(low, cuts, theta=10**6))
    for x in range(-127, 128, 7):
        state, _ = step(ops, spec, ready, {"v": np.array(0)}, np.array(x))
        assert int(state["v"]) == low[np.searchsorted(np.array(cuts), x, side="right")]


def test_every_reader_and_the_file():
    net = parse_bytes(to_bytes(network(theta=20)))
    assert net.neurons[0].spec == SPEC
    x = np.random.default_rng(0).integers(-40, 60, (5, 7, 3))
    for report in verify_readers(net, x):
        assert report.skipped or (report.differences == 0 and report.spikes > 0), report


def test_memory_counts_the_number_of_a_level_and_the_table():
    rows = {
        (row.role, row.count, row.bits) for row in network_memory(network()) if row.role in ("membrane", "codebook")
    }
    assert ("membrane", 3, 2) in rows
    assert sum(count for role, count, _ in rows if role == "codebook") >= 1
    table = [row for row in network_memory(network()) if row.role == "codebook"]
    assert sum(row.count for row in table) == 7  # a lowest level, three cuts, three rises


def test_a_spec_without_levels_is_written_as_before():
    plain = integrate_and_fire().replace(v=StateFormat(format=IntFormat(bits=8)))
    assert "levels" not in plain.to_dict()["v"]
    assert SPEC.to_dict()["v"]["levels"] == 4
    assert NeuronSpec.from_dict(SPEC.to_dict()) == SPEC


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"levels": [-20, 1, 15, 40]}, "no level at 0"), ({"levels": [-129, 0, 15, 40]}, "leave"), ({"levels": [0, 5, 3, 9]}, "ascend"),
     ({"levels": [0, 5, 9, 128]}, "leave"), ({"cuts": [5, 4, 9]}, "ascend"), ({"cuts": [0, 1, 2**40]}, "32 bits")],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(changes, what):
    with pytest.raises(Unsupported, match=what):
        network(**changes)


def test_specs_that_cannot_have_levels_are_refused():
    for levels in (1, 17):
        with pytest.raises(Unsupported, match="2 to 16"):
            SPEC.replace(v=dataclasses.replace(V, levels=levels))
    with pytest.raises(Unsupported, match="saturates"):
        SPEC.replace(v=dataclasses.replace(V, overflow="wrap"))
    with pytest.raises(Unsupported, match="lacks the parameter v_cut3"):
        network(cuts=CUTS[:2])

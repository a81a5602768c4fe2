"""`sq.compile` without a C compiler: the printed Python through numba equals the golden model."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conformance.graphs import graph
from tests.conformance.handmade import net as handmade

import spikequant as sq
from spikequant.readers import golden, native, numba_

pytest.importorskip("numba", reason="numba is not installed")


def same(run, wanted):
    assert np.array_equal(run.scores, wanted.scores)
    for name, train in wanted.outputs.items():
        assert np.array_equal(run.outputs[name], train)
        for state, values in wanted.states[name].items():
            assert np.array_equal(run.states[name][state], values)


@pytest.mark.parametrize("seed", range(2))
def test_handmade_networks(seed):
    net, codes, _ = handmade(seed)
    wanted = golden.run(net, codes, first_sample=5)
    run = sq.compile(net, engine="numba")
    same(run.trace(codes, first_sample=5), wanted)
    assert np.array_equal(run.run(codes, encoded=True, first_sample=5), wanted.scores)


def test_graphs_of_every_kind():
    spikes = 0
    for seed in range(12):
        net, codes, _ = graph(seed)
        wanted = golden.run(net, codes)
        same(golden.run(net, codes, machine=numba_.PrintedMachine), wanted)  # the text that numba is given
        spikes += sum(int(s.sum()) for s in wanted.outputs.values())
    assert spikes > 0


def test_streaming():
    net, codes, _ = handmade(0)
    run = sq.compile(net, engine="numba")
    steps = net.steps if net.input.static else len(codes)
    wanted = golden.run(net, codes)
    for t in range(steps):
        scores = run.step(codes if net.input.static else codes[t], encoded=True)
    last = wanted.scores[-1] if net.decoder.name.endswith("_train") else wanted.scores
    assert np.array_equal(scores, last)
    for node in net.neurons:
        assert np.array_equal(run.states()[node.name]["v"], wanted.states[node.name]["v"][-1])
    with pytest.raises(sq.DataError, match=r"call reset\(9\)"):
        run.step(np.zeros((9, *net.input.shape)), encoded=True)
    run.reset(1)
    assert not run.scores().any()
    with pytest.raises(sq.DataError, match="step takes"):
        run.step(np.zeros((1, 99, 99)), encoded=True)


def test_the_engine_is_chosen_and_named(monkeypatch):
    net, codes, _ = handmade(1)
    monkeypatch.setattr(native, "find_compiler", lambda: None)
    run = sq.compile(net)
    assert isinstance(run, numba_.NumbaNet)
    assert np.array_equal(run.run(codes, encoded=True), golden.run(net, codes).scores)
    monkeypatch.setattr(native, "numba_missing", lambda: "numba is not installed")
    with pytest.raises(sq.Unsupported, match=r"neither a C compiler \(tried .*\) nor numba is here"):
        sq.compile(net)
    with pytest.raises(sq.Unsupported, match="expected one of auto, c, numba"):
        sq.compile(net, engine="rust")


def test_without_numba_the_reader_says_so(monkeypatch):
    net, codes, _ = handmade(1)
    monkeypatch.setattr(numba_, "numba_missing", lambda: "numba is not installed")
    with pytest.raises(sq.Unsupported, match="pip install numba"):
        sq.compile(net, engine="numba").run(codes, encoded=True)


def test_the_python_reader_is_verified():
    from spikequant.readers.registry import verify_readers

    net, codes, _ = handmade(3)
    reports = {r.reader: r for r in verify_readers(net, codes, readers="golden,python")}
    assert reports["python"].differences == 0
    assert reports["python"].spikes > 0

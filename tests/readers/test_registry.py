"""`verify_readers`: counts, differences that are found, readers that cannot run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.conformance.handmade import net as handmade

import spikequant as sq
from spikequant.law import network
from spikequant.readers import golden, native, registry
from spikequant.readers.registry import verify_readers


def case(seed=3):
    net, codes, _ = handmade(seed)
    vectors = network.TestVectors(inputs=codes, scores=golden.run(net, codes).scores)
    return dataclasses.replace(net, vectors=vectors)


def test_all_readers_agree():
    net = case()
    reports = {r.reader: r for r in verify_readers(net)}
    assert set(reports) == set(registry.READERS)
    run = golden.run(net, net.vectors.inputs)
    for report in reports.values():
        if report.skipped:
            continue
        assert report.differences == 0
        assert report.neuron_steps == sum(o.size for o in run.outputs.values())
        assert report.spikes == sum(int(o.sum()) for o in run.outputs.values()) > 100
        assert report.states == sum(v.size for s in run.states.values() for v in s.values())
        assert "0 differences" in str(report)
        assert report.to_dict()["differences"] == 0


def test_a_broken_promise_is_the_golden_models_difference():
    net = case()
    vectors = dataclasses.replace(net.vectors, scores=net.vectors.scores + np.eye(*net.vectors.scores.shape, dtype=int))
    reports = verify_readers(dataclasses.replace(net, vectors=vectors), readers="golden")
    assert reports[0].differences == 2
    assert reports[0].first == "scores at [0, 0]"


def test_a_difference_is_counted_and_located(monkeypatch):
    def wrong(net, codes):
        run = golden.run(net, codes)
        states = {n: {s: v.copy() for s, v in d.items()} for n, d in run.states.items()}
        states["n2"]["v"][4, 1, 2] += 1
        return golden.Run(run.scores, run.outputs, states)

    monkeypatch.setattr(registry, "READERS", {"golden": golden.run, "mine": wrong})
    _, report = verify_readers(case())
    assert (report.differences, report.first) == (1, "state v of n2 at [4, 1, 2]")
    assert str(report).endswith("1 differences, first state v of n2 at [4, 1, 2]")


def test_inputs_of_the_user_are_used():
    net, codes, _ = handmade(3)
    with pytest.raises(sq.DataError, match="no test vectors and no inputs"):
        verify_readers(net)
    assert verify_readers(net, codes, readers=["golden"])[0].spikes > 0


def test_a_reader_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setattr(native, "find_compiler", lambda: None)
    report = verify_readers(case(), readers="c99")[0]
    assert str(report) == "c99: skipped, no C compiler was found (tried $CC, cc, gcc, clang)"
    assert report.to_dict() == {"skipped": report.skipped}


def test_an_unknown_reader_names_those_there_are():
    with pytest.raises(sq.Unsupported, match=r"reader 'fpga'; expected 'all' or some of golden, c99"):
        verify_readers(case(), readers="golden,fpga")

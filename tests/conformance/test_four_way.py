"""Simulation = golden model = ONNX Runtime = compiled C: every spike, every stored state, every step, no tolerance.

300 cases with every `make test` (60 networks, 5 inputs each, 64 to 96 steps: time); `benchmarks/conformance.py` runs
10,000 of up to 200 steps and writes the table of benchmarks/conformance.md.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from benchmarks import conformance
from tests.conformance import four_way
from tests.conformance.graphs import graph
from tests.conformance.handmade import net as handmade

from spikequant.readers import golden, onnx_
from spikequant.readers.native import find_compiler

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
FIRST, NETWORKS = 5_000, 60


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(records):
    """Nothing differs, and the networks were alive enough to show it."""
    assert not [(r.seed, r.differences, r.error) for r in records if r.error or any(r.differences.values())]
    ran = [r for r in records if not r.refused]
    assert all(set(r.differences) == {"simulation", "onnx", "c"} for r in ran)
    assert len(ran) >= 0.9 * len(records)
    facts = sum((Counter(r.facts) for r in ran), Counter())
    print(f"{sum(r.cases for r in ran)} cases, {sum(r.live for r in ran)} alive, {dict(facts)}")
    assert sum(r.live for r in ran) >= 0.9 * sum(r.cases for r in ran)
    assert all(facts[name] > 0 for name in ("equal", "saturated", "fired"))


@pytest.mark.parametrize("first", range(FIRST, FIRST + NETWORKS, 10))
def test_three_hundred_cases(first):
    if find_compiler() is None:
        pytest.skip("no C compiler was found")
    check(four_way.run(range(first, first + 10), ("cc", "-O1"), most=96))


@pytest.mark.conformance
@pytest.mark.parametrize("first", range(10_000, 12_000, 100))
def test_ten_thousand_cases(first):
    for start in range(first, first + 100, 20):
        check(four_way.run(range(start, start + 20), four_way.BUILDS[start // 20 % len(four_way.BUILDS)]))


@pytest.mark.parametrize("make", [handmade, graph])
@pytest.mark.parametrize(
    "first", [100, *(pytest.param(k, marks=pytest.mark.conformance) for k in range(200, 1200, 100))]
)
def test_onnx_on_networks_that_no_torch_layer_makes(make, first):
    spikes = 0
    for seed in range(first, first + (25 if first == 100 else 100)):
        net, codes, _ = make(seed)
        wanted = golden.run(net, codes, first_sample=7)
        for model, optimise in zip(onnx_.build(net), (seed % 2 == 0, seed % 2 == 1), strict=True):
            found = onnx_.trace(model, onnx_.session(model, optimise=optimise), codes, first_sample=7)
            assert four_way.different(found, wanted) == 0, f"seed {seed}, {model.form}, optimised: {optimise}"
        spikes += sum(int(wanted.outputs[n.name].sum()) for n in net.neurons if n.spec.output == "spike")
    assert spikes > 1000


def one_value_wrong(run):
    """The run with one stored state of one neuron at one step changed."""
    states = {n: {s: v.copy() for s, v in d.items()} for n, d in run.states.items()}
    values = next(iter(next(iter(states.values())).values()))
    values[3, 1].flat[0] += 1
    return golden.Run(run.scores, run.outputs, states)


@pytest.mark.parametrize("reader", ["simulation", "onnx", "c"])
def test_one_wrong_value_of_one_reader_is_seen(reader, monkeypatch):
    if reader == "onnx":
        real = onnx_.trace
        monkeypatch.setattr(onnx_, "trace", lambda *args: one_value_wrong(real(*args)))
    elif reader == "c":
        right = four_way.Compiled.trace
        monkeypatch.setattr(four_way.Compiled, "trace", lambda *args: one_value_wrong(right(*args)))
    else:
        simulate = four_way.simulate

        def wrong(*args):
            trains, states, result = simulate(*args)
            found = one_value_wrong(golden.Run(np.zeros(0), trains, states))
            return trains, found.states, result

        monkeypatch.setattr(four_way, "simulate", wrong)
    (record,) = four_way.run([5_001], ("cc", "-O0"), most=64)
    assert record.differences == {"simulation": 0, "onnx": 0, "c": 0, reader: 2 if reader == "onnx" else 1}


def test_a_reader_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(onnx_, "build", lambda net: 1 / 0)
    (record,) = four_way.run([5_001], ("cc", "-O0"), most=64)
    assert record.error == "compare_onnx: ZeroDivisionError: division by zero"
    assert "onnx" not in record.differences


def test_the_journal_survives_a_torn_line(tmp_path):
    journal = tmp_path / "runs" / "j.jsonl"
    records = [dataclasses.asdict(four_way.Record(seed)) for seed in range(3)]
    conformance.append(journal, records[:2])
    conformance.append(journal, records[2:])
    whole = journal.read_bytes()
    third = whole.rindex(b"\n", 0, -1) + 1
    for end in range(third, len(whole) + 1):
        journal.write_bytes(whole[:end])
        found = [r["seed"] for r in conformance.read(journal)]
        assert found == ([0, 1, 2] if end == len(whole) else [0, 1])
        conformance.append(journal, [json.loads(json.dumps(records[2]))])
        assert [r["seed"] for r in conformance.read(journal)][-1] == 2

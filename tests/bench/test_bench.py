"""The benchmark does the same work in every row, counts what it says, and writes its page."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
import torch

from spikequant.bench import WORKLOADS, measure, ours, run, session
from spikequant.bench.ceilings import needs
from spikequant.bench.clock import interleaved
from spikequant.bench.drawing import picture
from spikequant.bench.growth import growth
from spikequant.bench.peak import peak_bytes
from spikequant.bench.rows import INFERENCE, TRAINING
from spikequant.bench.subjects import mean_rates, subjects
from spikequant.bench.workloads import conv_of_width, weights_of
from spikequant.law.errors import DataError

LIBRARIES = ("spikingjelly", "snntorch", "norse", "sinabs")
# What other libraries warn of while they are imported is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


def built(workload, package):
    pytest.importorskip(package)
    load = WORKLOADS[workload]
    x = load.input(steps=5, batch=4)
    weights = weights_of(load, ours.float_parts(), x)
    everyone, _ = subjects(load, 8)
    names = {"spikingjelly": "SpikingJelly", "snntorch": "snnTorch", "norse": "Norse", "sinabs": "sinabs"}
    return x, weights, [s for s in everyone if s.is_ours or s.name.startswith(names[package])]


@pytest.mark.parametrize("package", LIBRARIES)
@pytest.mark.parametrize("workload", ["conv", "mlp"])
def test_every_float_row_computes_the_same(workload, package):
    x, weights, found = built(workload, package)
    outputs = {}
    for subject in found:
        if subject.kind == "float" and not subject.half:
            with torch.no_grad():
                outputs[subject.name] = subject.make(weights, x).eval()(x)
    assert len(outputs) >= 2
    first = outputs.pop("spikequant, float")
    assert first.abs().sum() > 0
    for name, other in outputs.items():
        gap = (first - other).abs().max() / first.abs().max()
        assert gap < (0.6 if name == "snnTorch" else 1e-3), name  # snnTorch resets one step later


@pytest.mark.parametrize("package", LIBRARIES)
def test_every_row_is_alive_and_alike(package):
    x, weights, found = built("mlp", package)
    rates = {s.name: mean_rates(s.make(weights, x).eval(), x) for s in found}
    reference = rates["spikequant, float"]
    assert min(reference) > 0.01
    for name, other in rates.items():
        assert other == pytest.approx(reference, rel=0.3), name


def test_the_residual_network_is_alive_when_it_infers():
    load = WORKLOADS["sew"]
    x = load.input(steps=2, batch=4)
    weights = weights_of(load, ours.float_parts(), x)
    own = [s for s in subjects(load, 8)[0] if s.is_ours]
    rates = {s.name: mean_rates(s.make(weights, x), x) for s in own}
    assert len(rates) == 2
    assert all(min(found) > 0.01 for found in rates.values()), rates
    assert rates["spikequant, W8/U8"] == pytest.approx(rates["spikequant, float"], rel=0.3)


def test_membranes_that_a_row_calls_quantized_are(monkeypatch):
    pytest.importorskip("spikingjelly")
    load = WORKLOADS["mlp"]
    x = load.input(steps=3, batch=2)
    weights = weights_of(load, ours.float_parts(), x)
    row = next(s for s in subjects(load, 2)[0] if "hand-made U2" in s.name)
    net = row.make(weights, x)
    net(x)
    assert len(torch.unique(net.born[0].v)) <= 4


def test_a_result_compares_with_the_fastest_other():
    pytest.importorskip("spikingjelly")
    chosen = ("spikequant, W8/U8", "SpikingJelly, multi-step")
    result = measure(WORKLOADS["mlp"], rounds=1, steps=2, batch=2, only=lambda s: s.name in chosen)
    ours_row = next(r for r in result.rows if r.name == chosen[0])
    fastest = result.fastest(TRAINING, half=False)
    assert fastest is not None
    assert fastest.name == chosen[1]
    ratio = result.ratio(ours_row, TRAINING, half=False)
    assert ratio == ours_row.times[TRAINING].median / fastest.times[TRAINING].median
    assert result.fastest(TRAINING, half=True) is None
    assert [r for r in result.rows if INFERENCE in r.times]


def test_a_library_that_is_absent_is_named(monkeypatch):
    def absent(bits):
        raise ImportError("no such library")

    monkeypatch.setattr("spikequant.bench.subjects.LIBRARIES", {"sometorch": absent})
    result = measure(WORKLOADS["mlp"], rounds=1, steps=2, batch=2, inference=False)
    assert result.missing == ("sometorch",)
    assert all(row.is_ours for row in result.rows)


def test_a_row_of_another_library_that_raises_is_left_out_and_said(monkeypatch):
    from dataclasses import replace

    def broken(bits):
        def neuron():
            raise RuntimeError("a broken neuron")

        yield "Broken", "float", replace(ours.float_parts(), neuron=neuron)

    monkeypatch.setattr("spikequant.bench.subjects.LIBRARIES", {"broken": broken})
    found = run(names=["mlp"], quick=True)
    assert "Broken" in found.results[0].failed
    assert any("a broken neuron" in word for word in found.words)


def test_calls_take_turns_and_slow_ones_run_once(monkeypatch):
    order, now = [], [0.0]

    def clock():
        return now[0]

    def call(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run

    monkeypatch.setattr("spikequant.bench.clock.time.perf_counter", clock)
    times = interleaved({"fast": call("fast", 0.5), "slow": call("slow", 60.0)}, rounds=2)
    assert order == ["fast", "slow", "fast", "fast"]
    assert times["fast"].median == 0.5
    assert times["fast"].rounds == 2
    assert times["slow"].median == 60.0
    assert times["slow"].rounds == 1


def test_needs_are_counted():
    load = WORKLOADS["mlp"]
    x = load.input(steps=2, batch=3)
    counted = needs(load, x)
    assert counted.macs == 2 * 3 * (784 * 1000 + 1000 * 10)
    assert counted.bytes == 4 * 2 * 3 * ((784 + 1000) + (1000 + 1000) + (1000 + 10))


def test_growth_varies_one_thing_at_a_time(monkeypatch):
    monkeypatch.setattr("spikequant.bench.subjects.LIBRARIES", {})
    points = growth(WORKLOADS["mlp"], steps=(1, 2), batches=(), bits=(4,), rounds=1, said=lambda text: None)
    assert [(p.varied, p.value) for p in points] == [("T", 1), ("T", 2), ("bits", 4)]
    assert all(set(p.milliseconds) == {"spikequant, float", "spikequant, quantized"} for p in points)


def test_a_picture_holds_every_figure(monkeypatch):
    monkeypatch.setattr("spikequant.bench.subjects.LIBRARIES", {})
    points = growth(
        WORKLOADS["conv"], steps=(1,), batches=(1,), widths=(2,), bits=(4,), rounds=1, said=lambda text: None
    )
    drawn = ElementTree.fromstring(picture(points))
    assert len(drawn.findall("{*}svg")) == 4
    assert {p.varied for p in points} == {"T", "batch", "width", "bits"}
    assert conv_of_width(2).title.startswith("conv2-LIF-pool-conv4")


def test_an_unknown_workload_is_refused():
    with pytest.raises(DataError, match="unknown workload 'resnet'; expected some of conv, mlp, sew"):
        run(names=["resnet"])
    with pytest.raises(DataError, match="rounds is 0"):
        measure(WORKLOADS["mlp"], rounds=0)


def test_peak_memory_of_a_step_is_measured():
    peak = peak_bytes("mlp", "spikequant, float", 8, 4, 8)
    if peak is None:
        pytest.skip("this system does not tell the peak memory of a process")
    assert 0 < peak < 2**30


def test_the_pages_hold_every_row(monkeypatch):
    monkeypatch.setattr("spikequant.bench.subjects.LIBRARIES", {})
    monkeypatch.setattr(
        session, "growth", lambda *a, **k: growth(*a, **{**k, "steps": (1, 2), "batches": (), "widths": (), "bits": ()})
    )
    found = run(names=["mlp"], rounds=1, with_peaks=False)
    for page in (found.markdown(), found.html()):
        assert "spikequant, W8/U8, integers" in page
        assert "Growth of a training step" in page
    assert "<svg" in found.html()
    assert "<script" not in found.html()
    assert "http" not in found.html().replace("http-equiv", "")
    json.dumps(found.to_dict())

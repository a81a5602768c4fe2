"""Figures: what is drawn equals what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from tests.report.made import comparison, raster

from spikequant.analyse import Raster
from spikequant.measure import emd
from spikequant.report.cost_plots import bits_of, emd_by_layer, energy_of, memory_of
from spikequant.report.firing_plots import chosen_neurons, ecdf, escaped, histogram, quantiles, rate_against_rate
from spikequant.report.raster_plots import raster_pair

RATES = hn.arrays(np.float32, st.integers(1, 60), elements=st.floats(0, 1, width=32))


@given(RATES, RATES)
def test_the_shaded_area_is_the_emd(r, q):
    before, after = ecdf(r, q)["data"]
    x, gap = np.array(before["x"]), np.abs(np.array(before["y"]) - np.array(after["y"])) / 100
    assert before["x"] == after["x"]
    area = float((np.diff(x) * gap[:-1]).sum())  # steps: a value holds until the next x
    assert area == pytest.approx(emd(r, q), abs=2e-4)


@given(RATES, RATES)
def test_the_histogram_counts_every_neuron(r, q):
    bars, outline = histogram(r, q)["data"]
    assert sum(bars["y"]) == pytest.approx(100, abs=1e-2)
    assert sum(outline["y"][1:-2]) == pytest.approx(100, abs=1e-2)


def test_silenced_neurons_are_a_group_of_their_own():
    figure = rate_against_rate(np.array([0.2, 0.0, 0.5]), np.array([0.0, 0.0, 0.4]), limit=10)
    points = {trace["name"]: trace.get("customdata") for trace in figure["data"]}
    assert points == {"no change": None, "neuron": [1, 2], "fell silent": [0]}


def test_a_large_layer_is_thinned_out_the_same_way_every_time_and_keeps_what_moved_most():
    generator = np.random.default_rng(0)
    r = generator.random(5000)
    q = r.copy()
    q[[7, 4999]] = 0.0
    shown = chosen_neurons(r, q, 300)
    assert len(shown) == 300 == len(set(shown.tolist()))
    assert {7, 4999} <= set(shown.tolist())
    assert (shown == chosen_neurons(r, q, 300)).all()
    assert chosen_neurons(r[:300], q[:300], 300).tolist() == list(range(300))


@pytest.mark.parametrize("rates", [np.zeros(3), np.ones(1), np.array([2.5, 0.0])])
def test_silent_single_and_multiple_spikes_can_be_drawn(rates):
    for figure in (histogram(rates, rates), ecdf(rates, rates), rate_against_rate(rates, rates, 10)):
        low, high = figure["layout"]["xaxis"]["range"]
        assert low == 0 < high
        assert high >= rates.max()
    assert quantiles(rates, rates)[-1] == [100, rates.max(), rates.max()]


def test_a_raster_marks_what_one_network_has_and_the_other_lacks():
    r, q = np.array([[1, 0, 1], [0, 0, 2]]), np.array([[1, 1, 0], [0, 0, 1]])
    pair = raster_pair(
        Raster(layer="lif", sample=4, neurons=np.array([0, 5, 9]), total=10, reference=r, quantized=q), 100
    )
    before, after = ({t["name"]: list(zip(t["x"], t["customdata"], strict=True)) for t in figure["data"]}
                     for figure in (pair.reference, pair.quantized))  # fmt: skip
    assert before == {
        "in both": [(0, 0)],
        "another count": [(1, 9)],
        "only in reference": [(0, 9)],
        "missing, is in quantized": [(0, 5)],
    }
    assert after == {
        "in both": [(0, 0)],
        "another count": [(1, 9)],
        "only in quantized": [(0, 5)],
        "missing, is in reference": [(0, 9)],
    }
    assert pair.words == (
        "Sample 4, 3 of 10 neurons, 2 steps. Spikes: 1 in both networks, 1 only in the reference, 1 only in the quantized "
        "network, 1 in both but not as many. They first differ at step 0."
    )


def test_a_raster_without_differences_and_one_without_spikes():
    assert raster_pair(raster("lif", differ=False), 1000).words.endswith("They do not differ.")
    nothing = np.zeros((4, 3), np.int32)
    pair = raster_pair(
        Raster(layer="l", sample=0, neurons=np.arange(3), total=3, reference=nothing, quantized=nothing), 10
    )
    assert [trace["name"] for trace in pair.reference["data"]] == ["no spike"]


def test_a_long_raster_is_cut_in_time_and_says_so():
    pair = raster_pair(raster("lif", steps=500), 100)
    assert "Drawn: steps 0 to" in pair.words
    assert sum(len(trace["x"]) for trace in pair.reference["data"] if not trace["name"].startswith("missing")) <= 100


def test_floors_that_were_not_measured_are_not_drawn():
    names = [trace["name"] for trace in emd_by_layer(comparison(floor=float("nan"), seed_floor=None))["data"]]
    assert names == ["EMD"]
    assert len(emd_by_layer(comparison())["data"]) == 3


def test_memory_energy_and_bits_are_those_of_the_sides():
    c = comparison()
    flash, ram = (memory_of(c.reference, c.quantized, kind) for kind in ("flash", "ram"))
    for figure, before, after, unit in ((flash, c.reference.flash_bytes, c.quantized.flash_bytes, 1024),
                                  (ram, c.reference.ram_bytes, c.quantized.ram_bytes, 1)):  # fmt: skip
        assert [sum(trace["x"]) for trace in figure["data"]] == pytest.approx([before / unit, after / unit], rel=1e-5)
        assert figure["layout"]["xaxis"]["title"]["text"] == {1: "B", 1024: "KiB"}[unit]
    energies, after = energy_of(c.reference, c.quantized), c.quantized.energy
    expected = [pj / 1000 for pj in (after.fp_ops, after.integer_ops, after.integer_ops_and_traffic)]
    assert energies["data"][1]["x"] == pytest.approx(expected, rel=1e-5)
    assert energies["layout"]["xaxis"]["title"]["text"] == "nJ per sample"
    assert {trace["name"]: trace["x"] for trace in bits_of(c.quantized)["data"]}["membrane"] == [8, 8]


def test_names_cannot_be_markup_in_a_plot():
    figure = emd_by_layer(comparison(("<b>lif</b>", "<a href='x'>2</a>")))
    assert figure["layout"]["yaxis"]["ticktext"] == ["&lt;b&gt;lif&lt;/b&gt;", "&lt;a href='x'&gt;2&lt;/a&gt;"]
    assert escaped("a&amp;b") == "a&amp;amp;b"


def test_a_raster_of_many_neurons_shows_evenly_spaced_ones():
    pair = raster_pair(raster("lif", shown=200, total=512), 10_000)
    assert pair.words.startswith("Sample 0, 64 of 512 neurons")
    assert max(max(trace["y"]) for trace in pair.reference["data"]) < 64


def test_a_late_difference_is_in_the_window():
    r = np.zeros((1000, 4), np.int32)
    r[::10] = 1
    q = r.copy()
    q[700, 2] = 0
    pair = raster_pair(Raster(layer="l", sample=0, neurons=np.arange(4), total=4, reference=r, quantized=q), 10_000)
    assert pair.words.endswith("They first differ at step 700. Drawn: steps 680 to 799.")
    assert next(trace["x"] for trace in pair.reference["data"] if trace["name"] == "only in reference") == [700]
    assert pair.reference["layout"]["xaxis"]["range"] == [679.4, 799.6]

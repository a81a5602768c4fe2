"""Headlines: the whole sentence, for good news, for bad news, and for no news."""

from __future__ import annotations

import dataclasses
import math

import pytest
from tests.report.made import comparison, layer

from spikequant.report.numerals import GAP, MINUS
from spikequant.report.view import alarms, divergence_words, tiles
from spikequant.report.wording import floor_standing, headline, headline_of_many, layer_words


def plain(text: str) -> str:
    return text.replace(GAP, " ").replace(MINUS, "-")


def test_a_change_within_the_interval_is_no_change():
    c = comparison()
    assert plain(headline(c)) == (
        f"Accuracy did not change measurably, 98.06 % before and 98.33 % after (+0.28 ± 0.94 points), in 7.1 times less "
        f"memory (1.0 KiB instead of 7.2 KiB); firing rates moved by an EMD of {c.emd:.4f}, within the floor of 0.0070 "
        f"between two halves of the data, and 30.0 % of the neurons are dead (31.2 % before)."
    )


def test_bad_news_is_said_plainly():
    c = comparison(difference=-40.06, interval=5.2, after=0.58, moved=0.2)
    text = plain(headline(c))
    assert text.startswith("Accuracy fell from 98.06 % to 58.00 % (-40.06 ± 5.20 points), in 7.1 times less memory")
    assert f"EMD of {c.emd:.4f}, {c.emd / 0.014:.1f} times the floor of 0.0140 between two float seeds" in text


def test_a_silent_layer_comes_first():
    text = plain(headline(comparison(("lif1", "lif2", "lif3"), silent=("lif2", "lif3"), difference=-5.0, after=0.93)))
    assert text.startswith("Layers lif2, lif3 fell silent: accuracy fell from 98.06 % to 93.00 %")


def test_six_silent_layers_are_counted_not_listed():
    names = tuple(f"lif{k}" for k in range(6))
    assert headline(comparison(names, silent=names)).startswith(
        "Layers lif0, lif1, lif2, lif3 and 2 more fell silent: "
    )


def test_a_rise_beyond_the_interval_is_a_rise():
    text = plain(headline(comparison(difference=2.0, interval=0.5, after=0.9999)))
    assert text.startswith("Accuracy rose from 98.06 % to 99.99 % (+2.00 ± 0.50 points)")


def test_nothing_changed():
    c = comparison(difference=0.0, interval=0.0, after=0.9806, moved=0.0, weight_bits=32, state_bits=32, diverge=False)
    assert plain(headline(c)) == (
        "Accuracy is unchanged at 98.06 %, on every sample, in no less memory (7.2 KiB); the distributions of firing rates "
        "are the same in every layer (EMD 0), and 31.2 % of the neurons are dead, as before."
    )


def test_what_was_not_measured_is_said():
    text = plain(headline(comparison(interval=math.nan, floor=math.nan, seed_floor=None)))
    assert "(+0.28 points, interval not measured)" in text
    assert "and its floor was not measured" in text


@pytest.mark.parametrize(
    ("emd", "words"),
    [
        (0.006, "within the floor of 0.0070 between two halves of the data"),
        (0.010, "above the floor between two halves of the data (0.0070) but within the floor of 0.0140 between two float seeds"),
        (0.028, "2.0 times the floor of 0.0140 between two float seeds"),
    ],
)  # fmt: skip
def test_the_emd_stands_between_its_floors(emd, words):
    row = dataclasses.replace(layer("lif1", [0.1, 0.2], [0.2, 0.3]), emd=emd)
    assert words in layer_words(row)


def test_a_floor_of_zero_divides_nothing():
    row = layer("lif1", [0.1, 0.2], [0.2, 0.3], floor=0.0, seed_floor=None)
    assert "above the floor of 0 between two halves of the data" in layer_words(row)


def test_a_larger_network_is_bad_news():
    c = comparison()
    worse = dataclasses.replace(c, reference=c.quantized, quantized=c.reference)
    assert "7.1 times more memory" in plain(headline(worse))
    assert {tile.label for tile in tiles(worse) if tile.bad} >= {"Memory", "Operations per sample"}


def test_many_networks_in_one_sentence():
    many = {"a": comparison(), "b": comparison(silent=("lif2",), difference=-40.0, after=0.58)}
    text = plain(headline_of_many(many))
    assert text.startswith(
        "Two quantized networks against one reference of 98.06 %: a has 98.33 % (+0.28 ± 0.94 points)"
    )
    assert f"its EMD of {many['a'].emd:.4f} within both floors; b has" in text
    assert text.endswith(f"its EMD of {many['b'].emd:.4f} above both floors, with silent layers.")


@pytest.mark.parametrize(
    ("moved", "floor", "seed_floor", "words"),
    [
        (0.2, math.nan, None, "without a floor to hold it against"),
        (0.004, 0.007, None, "within its floor"),
        (0.2, 0.007, None, "above its floor"),
        (0.004, 0.001, 0.014, "between its floors"),
    ],
)
def test_where_the_emd_stands(moved, floor, seed_floor, words):
    c = comparison(moved=moved, floor=floor, seed_floor=seed_floor)
    assert floor_standing(c) == words
    verdict = next(tile.verdict for tile in tiles(c) if "EMD" in tile.label)
    assert verdict.lower() == words or verdict == f"{c.emd / floor:.1f} times the floor"


def test_alarms_tell_fallen_silent_from_always_silent():
    c = comparison(("lif1", "lif2"), silent=("lif1",))
    never = layer("lif2", [0.0, 0.0], [0.0, 0.0])
    gone, proves_nothing = alarms(dataclasses.replace(c, layers=(c.layers[0], never)))
    assert gone.startswith("Layer lif1 fell silent: none of its 40 neurons fires")
    assert proves_nothing == "Layer lif2 is silent in both networks: its figures prove nothing."


def test_divergence_in_words():
    assert "Step 2, layer lif1, sample 1, neuron 17: the reference emits 1" in divergence_words(comparison())
    same = comparison(diverge=False, moved=0.0)
    assert divergence_words(same) == "None: every spike of all 360 samples is the same in both networks."
    assert divergence_words(comparison(diverge=False)).startswith("Not recorded: the rates differ")


def test_of_many_networks_the_smallest_without_a_measurable_loss_is_named():
    good = {f"W{bits}": comparison(weight_bits=bits) for bits in (8, 4, 6)}
    lossy = {
        "W1": comparison(weight_bits=1, difference=-30.0, after=0.68),
        "W2": comparison(silent=("lif2",), difference=-50.0, after=0.48),
    }
    text = plain(headline_of_many({**lossy, **good}))
    assert "Five quantized networks" in text
    assert ": the smallest without a measurable loss, W4, has 98.33 % (+0.28 ± 0.94 points) in 7.1 times" in text
    assert text.endswith("; 1 of 5 have silent layers.")
    worse = {f"{k}": comparison(difference=-10.0 * k, after=0.9 - 0.1 * k) for k in (3, 1, 2, 4)}
    assert ": all with a measurable loss; the most accurate, 1, has 80.00 % (-10.00 ± 0.94 points)" in plain(
        headline_of_many(worse)
    )


def test_many_networks_without_intervals_or_savings_are_not_called_worse_or_smaller():
    c = comparison(interval=float("nan"), difference=0.0, after=0.98)
    same = dataclasses.replace(c, quantized=dataclasses.replace(c.quantized, memory=c.reference.memory))
    text = plain(headline_of_many({str(k): same for k in range(4)}))
    assert "measurable loss, 0, has" in text
    assert "all with a measurable loss" not in text
    assert "in no less memory" in text

"""Labels and votes by hand; the input's statistics; pictures; a whole row."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.learn.networks import FOUR, images, tiny

from spikequant import data, learn
from spikequant.law.errors import DataError, PlanError, Unsupported
from spikequant.learn import build


def activity(counts: Any, order: Any = None) -> learn.Activity:
    counts = np.array(counts, np.int32)
    empty = np.zeros((0, 0, 0))
    rows = np.full((len(counts), 0), -1, np.int32) if order is None else np.array(order, np.int32)
    return learn.Activity(counts, rows, empty, empty, empty)


def test_labels_and_votes_by_hand() -> None:
    seen = activity([[4, 0, 1, 0], [2, 1, 1, 0], [0, 6, 2, 0]])
    labels = learn.assign_labels(seen, [0, 0, 1], classes=2)
    assert labels.assigned.tolist() == [0, 1, 1, -1], "means, not sums: neuron 2 answers 1 and 2; neuron 3 is silent"
    assert labels.proportions[1].tolist() == pytest.approx([0.5 / 6.5, 6 / 6.5])
    answers = activity([[3, 1, 3, 9], [0, 0, 0, 0]])
    assert learn.votes(answers, labels, vote="all").tolist() == [[3.0, 2.0], [0.0, 0.0]]
    weights = labels.proportions
    expected = (np.array([3, 1, 3, 9]) @ weights) / weights.sum(axis=0)
    assert np.allclose(learn.votes(answers, labels, vote="proportional")[0], expected)
    assert learn.predict(answers, labels).tolist() == [0, 0]


def test_the_order_of_spikes_votes() -> None:
    seen = activity([[1, 1], [1, 1]], order=[[0, 1, -1], [1, 0, -1]])
    labels = learn.assign_labels(seen, [0, 1], classes=2)
    answers = activity([[1, 1], [1, 1]], order=[[1, 0, -1], [0, 1, -1]])
    assert learn.predict(answers, labels, vote="ngram").tolist() == [1, 0]
    assert learn.predict(answers, labels, vote="all").tolist() == [0, 0], "the counts alone cannot tell"


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(DataError, match="expected 2 of them"):
        learn.assign_labels(activity([[1], [2]]), [0], classes=2)
    with pytest.raises(DataError, match="whole numbers 0 to 1"):
        learn.assign_labels(activity([[1], [2]]), [0, 2], classes=2)
    labels = learn.assign_labels(activity([[1], [2]]), [0, 1], classes=2)
    with pytest.raises(DataError, match="vote 'most'; expected one of all, proportional, ngram"):
        learn.votes(activity([[1]]), labels, vote="most")  # type: ignore[arg-type]


def test_the_input_spikes_at_its_rate_and_replays() -> None:
    table = learn.chance_table(4, rate_hz=100.0, dt_ms=1.0)
    pixels = np.tile(np.arange(5, dtype=np.uint8), (8, 1))
    spikes = learn.poisson_spikes(pixels, table, steps=4000, seed=5)
    assert spikes.mean(axis=(0, 1)) == pytest.approx([0.0, 0.025, 0.05, 0.075, 0.1], abs=0.004)
    gaps = np.diff(np.flatnonzero(spikes[:, :, 4].T.ravel()))
    assert gaps.var() == pytest.approx((1 - 0.1) / 0.1**2, rel=0.1), "geometric gaps: every step is drawn alone"
    later = learn.poisson_spikes(pixels[3:], table, steps=50, seed=5, first_sample=3)
    assert np.array_equal(later, spikes[:50, 3:])
    assert not np.array_equal(spikes, learn.poisson_spikes(pixels, table, steps=4000, seed=6))
    with pytest.raises(DataError, match="2 spikes a step"):
        learn.chance_table(4, rate_hz=2000.0, dt_ms=1.0)


def test_pictures() -> None:
    if find_spec("plotly") is None:
        pytest.skip("plotly is not installed")
    net = learn.Network(tiny(), FOUR, engine="python")
    sheet = learn.fields(net, shape=(3, 4))
    assert sheet.shape == (2 * 4 - 1, 3 * 5 - 1)
    assert np.array_equal(sheet[:3, :4], net.real_weights()[:, 0].reshape(3, 4))
    with pytest.raises(DataError, match="3 x 3 is not 12 inputs"):
        learn.fields(net)
    assert len(learn.field_figure(net, shape=(3, 4)).data) == 1
    figure = learn.confusion_figure(learn.confusion([0, 1, 1], [0, 0, 1], classes=2))
    assert "66.7% of 3" in figure.layout.title.text


def test_without_numba_the_fast_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    assert build.chosen_engine("auto") == "python"
    with pytest.raises(Unsupported, match=r"pip install 'spikequant\[numba\]'"):
        build.chosen_engine("numba")
    with pytest.raises(Unsupported, match="engine 'fast'; expected one of auto, numba, python"):
        build.chosen_engine("fast")


@pytest.mark.parametrize("scheme", ["float", "itq", "ptq"])
def test_a_row_on_a_few_digits(scheme: Any, tmp_path: Path) -> None:
    digits = data.load_digits()
    config = learn.DiehlCook(inputs=64, neurons=6, levels=16, steps=20, rate_hz=300.0, norm=0.4, inhibit_mv=20.0)
    precision = (
        learn.Precision() if scheme == "float" else learn.precision_of(weight=4, membrane=10, threshold=8, trace=4)
    )
    outcome = learn.experiment(
        digits, config=config, precision=precision, scheme=scheme, samples=12, test_samples=6, label_samples=12,
        checkpoint=tmp_path / "net.safetensors", engine="python",
    )  # fmt: skip
    record = json.loads(json.dumps(outcome.to_dict()))
    assert record["scheme"] == scheme
    assert len(record["correct"]) == record["tested_on"] == 6
    assert record["correct"].count("1") / 6 == pytest.approx(record["accuracy"]["all"])
    assert outcome.spikes > 0.5
    assert outcome.saving == 1.0 if scheme == "float" else outcome.saving > 4.0
    assert outcome.memory_bits == sum(outcome.memory_by_part.values())
    with pytest.raises(PlanError, match="does not go with the precision"):
        learn.experiment(digits, config=config, precision=learn.Precision(), scheme="itq")


def test_memory_counts_every_role() -> None:
    config = tiny()
    whole = learn.memory(config, FOUR).parts
    assert whole == {
        "weights": 12 * 5 * 4, "membranes": 5 * 7, "refractory counters": 5 * 2, "adaptive thresholds": 5 * 6,
        "constants": 8 * 32, "traces": 17 * 3, "spikes on their way": 3, "fired in this image": 5,
    }  # fmt: skip
    inferring = learn.memory(config, FOUR, learns=False).parts
    assert set(whole) - set(inferring) == {"traces", "fired in this image"}
    assert inferring["spikes on their way"] == 5
    layered = learn.memory(dataclasses.replace(config, inhibition="layer"), FOUR).parts
    assert layered["inhibitory membranes"] == 5 * 7
    assert learn.memory(config, learn.Precision()).parts["refractory counters"] == 5 * 32
    assert images(2).shape == (2, 12)

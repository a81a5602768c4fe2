"""The last choice of an exploration."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from spikequant.analyse import Observation
from spikequant.explore import Candidate, Measured, Study, Trial
from spikequant.law.errors import DataError
from spikequant.recipes import finalists as place
from spikequant.recipes.finalists import apart, confirmed, finalists, most_accurate

REAL = Measured(accuracy=0.9, samples=100, flash_bytes=80.0, ram_bytes=20.0, energy_pj=1.0, emd=0.0, dead=0.0,
                stopped_early=False, seconds=0.0, scheme="float")  # fmt: skip


def trial(number: int, accuracy: float, bytes_: float, **changes: Any) -> Trial:
    measured = replace(REAL, accuracy=accuracy, flash_bytes=bytes_, ram_bytes=0.0, **changes)
    return Trial(number=number, candidate=Candidate({"*:weight.bits": 2 + number}), measured=measured)


class Few(Study):
    """A study of given trials, whose networks are the names of their answers."""

    def apply(self, one: Any = None, *, batches: Any = None) -> Any:
        return one.number, None


def study(*trials: Trial) -> Study:
    given: Any = {name: None for name in ("space", "selection", "reward")}
    materials: Any = type("Materials", (), {"model": nn.Identity()})()
    return Few(trials=trials, reference=REAL, target_accuracy=0.85, materials=materials, **given)


def answers(monkeypatch: pytest.MonkeyPatch, wrong: dict[Any, int]) -> None:
    """The real network is right on all of 100 samples; a candidate errs on so many."""

    def seen(model: Any, batches: Any, *, operations: bool) -> Observation:
        assert not operations
        few = 0 if isinstance(model, nn.Module) else wrong[model]
        return Observation(predictions=[(torch.arange(100) < few).long()], targets=[torch.zeros(100).long()])

    monkeypatch.setattr(place, "observe", seen)


def test_finalists_keep_the_target_and_the_size_smallest_first() -> None:
    trials = (
        trial(0, 0.86, 10.0), trial(1, 0.95, 30.0), trial(2, 0.84, 5.0), trial(3, 0.90, 16.0),
        trial(4, 0.9, 8.0, stopped_early=True), trial(5, math.nan, 1.0),
    )  # fmt: skip
    assert [one.number for one in finalists(study(*trials), 6.0)] == [0, 3]
    assert [one.number for one in finalists(study(*trials), 3.0)] == [0, 3, 1]


def test_of_like_size_the_most_accurate_is_looked_at() -> None:
    trials = [trial(k, 0.85 + 0.001 * (k % 2), 10.0 - 0.1 * k) for k in range(16)]
    assert [one.number for one in finalists(study(*trials), 6.0)] == [15, 13, 11, 9, 7, 5, 3, 1]


def test_the_smallest_whose_interval_ends_above_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = trial(0, 0.9, 5.0), trial(1, 0.9, 8.0), trial(2, 0.9, 10.0), trial(3, 0.9, 12.0)
    answers(monkeypatch, {0: 9, 1: 1, 2: 0, 3: 0})
    chosen, looks = confirmed(study(*trials), [], least_smaller=6.0, least_points=-2.0)
    assert chosen.number == 2  # 1 loses 1 point +- 1.97, which ends below -2
    assert [(look.trial.number, look.difference) for look in looks] == [(0, -9.0), (1, -1.0), (2, 0.0)]
    assert looks[1].to_dict()["smaller"] == 12.5


def test_where_none_does_the_best_end_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = trial(0, 0.9, 5.0), trial(1, 0.9, 8.0), trial(2, 0.9, 10.0)
    answers(monkeypatch, {0: 9, 1: 4, 2: 6})
    chosen, looks = confirmed(study(*trials), [], least_smaller=6.0, least_points=-1.0)
    assert (chosen.number, len(looks)) == (1, 3)


def test_where_nothing_is_small_enough_the_most_accurate_is_taken() -> None:
    chosen, looks = confirmed(study(trial(0, 0.9, 50.0), trial(1, 0.8, 5.0)), [], least_smaller=6.0, least_points=-1.0)
    assert (chosen.number, looks) == (0, ())


def test_the_most_accurate_saw_all_samples_if_any_did() -> None:
    early = [trial(0, 0.9, 1.0, stopped_early=True), trial(1, 0.8, 1.0, stopped_early=True)]
    assert most_accurate([*early, trial(2, 0.5, 1.0)]).number == 2
    assert most_accurate(early).number == 0
    with pytest.raises(DataError, match="no candidate"):
        most_accurate([trial(3, math.nan, 1.0)])


def numbered(*sizes: int) -> list[tuple[Any, torch.Tensor]]:
    """Batches of these sizes whose samples are numbered."""
    return [(None, part) for part in torch.arange(sum(sizes)).split(list(sizes))]


def test_no_sample_is_explored_on_and_decides() -> None:
    held_out, unseen = numbered(4, 4, 2), [(None, 100 + y) for _, y in numbered(3, 3, 3)]
    explored, deciding = apart(held_out, unseen, 6, 5)
    assert torch.cat([y for _, y in explored]).tolist() == list(range(8))
    assert torch.cat([y for _, y in deciding]).tolist() == [8, 9, 100, 101, 102]


def test_where_no_other_sample_is_left_those_explored_on_decide() -> None:
    explored, deciding = apart(numbered(4, 2), (), 50, 50)
    assert explored == deciding
    assert sum(len(y) for _, y in deciding) == 6

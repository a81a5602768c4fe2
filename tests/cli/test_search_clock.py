"""The bound on trials and time that `quantize --max-drop` shows: never less than what really comes."""

from __future__ import annotations

import pytest

from spikequant.cli.search_clock import MOST_TRAININGS, SearchClock
from spikequant.shrinking import Trial


class Watch:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def tried(scheme, weight, membrane, *, met=True, relief=None, seconds=0.0):
    return Trial(
        name="t",
        scheme=scheme,
        weight_bits=weight,
        membrane_bits=membrane,
        met=met,
        relief=relief or {},
        seconds=seconds,
    )


def test_a_failing_top_leaves_only_trainings():
    search = SearchClock(4)
    search.trial(tried("ptq", 8, 12, met=False))
    assert (search.done, search.most) == (1, 5)
    search = SearchClock(4)
    search.trial(tried("ptq", 6, 8, met=False))  # the first one of a search that goes on
    assert search.most > 20


def test_time_is_that_of_the_longest_trial_for_all_that_may_come():
    watch = Watch()
    search = SearchClock(2, now=watch)
    assert search.left() == "time left not known yet"
    assert search.most == 1 + 2 * 10 + 4 + 1 + 2
    watch.now = 20.0  # 17 s of them before the first trial
    search.trial(tried("ptq", 1, 2, seconds=3.0))  # the end of the ladder
    assert search.left() == "at most about 0:15 left, then up to 2 trainings"
    search.training(0, 10)
    watch.now = 30.0
    search.training(5, 10)  # half of it in 10 s: 20 s for each of two
    assert search.share == 0.5
    assert search.left() == "at most about 0:30 left"
    watch.now = 42.0
    search.trial(tried("qat", 1, 2))
    assert str(search) == "trial 2 of at most 3, at most about 0:22 left"
    search.trial(tried("qat", 1, 2))
    assert str(search) == "trial 3 of at most 3, the last one"


def test_the_default_of_the_search_is_what_is_counted():
    import inspect

    import spikequant as sq

    assert inspect.signature(sq.shrink).parameters["max_trainings"].default == MOST_TRAININGS


@pytest.mark.parametrize("held", [0.0, 0.3, 0.7, 1.0])
def test_a_real_way_down_never_has_more_trials_than_were_announced(monkeypatch, held):
    """`Descent` itself with trials that hold or fail by lot."""
    import random

    from spikequant.shrinking import descent
    from spikequant.shrinking.ladder import Ladder

    class Roles:
        synapses, feeds = ("fc1", "fc2", "fc3"), {"fc1": "lif1", "fc2": "lif2", "fc3": "lif3"}

    class Bench:
        ladder, roles, epochs = Ladder(), Roles(), 1

        def bits_of(self, rung):
            return rung.weight_bits * 3 + rung.membrane_bits

    class Journal:
        def __init__(self):
            self.done = {}

        def checkpoint(self, attempt): ...

        def keep(self, tried): ...

    class Show:
        def trial(self, name, text): ...

        tick = None

    longest = 0
    for seed in range(200):
        lot = random.Random(seed)

        def run_trial(bench, attempt, *, tick, checkpoint, lot=lot):
            rung = attempt.rung
            trial = Trial(
                name=str(attempt), scheme=attempt.scheme, weight_bits=rung.weight_bits,
                membrane_bits=rung.membrane_bits, relief=attempt.relief, signed=attempt.signed,
                accuracy=1.0, drop=0.0 if lot.random() < held else 9.0, interval=0.0,
                layer_emd={"lif2": 1.0}, flash_bytes=1, ram_bytes=1,
            )  # fmt: skip
            return descent.Tried(trial=trial, attempt=attempt, model=None, report=None, weights={})

        monkeypatch.setattr(descent, "run_trial", run_trial)
        search, bounds = SearchClock(4), []

        def on_step(trial, search=search, bounds=bounds):
            search.trial(trial)
            bounds.append(search.most)

        way = descent.Descent(Bench(), Journal(), 0.5, False, 4, Show(), on_step)
        way.search()
        assert len(way.trials) <= min(bounds)
        longest = max(longest, len(way.trials))
    assert longest > 1

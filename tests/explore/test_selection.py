import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.explore.records import Measured
from spikequant.explore.reward import Reward, additive, multiplicative
from spikequant.explore.selection import DIRECTIONS, Objective, costs, objectives, select
from spikequant.law.errors import DataError


def scored(accuracy: float, flash: float = 1.0, ram: float = 1.0, *, stopped: bool = False) -> Measured:
    return Measured(accuracy=accuracy, samples=100, flash_bytes=flash, ram_bytes=ram, energy_pj=flash + ram, emd=0.1,
                    dead=0.2, stopped_early=stopped, seconds=0.0, scheme="ptq")  # fmt: skip


RESULTS = [scored(0.99, 80), scored(0.98, 40), scored(0.97, 39), scored(0.5, 5), scored(0.999, 1, stopped=True)]


def test_the_front_holds_only_who_keeps_the_target_and_saw_all() -> None:
    found = select(RESULTS, ["accuracy", "flash_bytes"], target_accuracy=0.9)
    assert (found.kept, found.front, found.knee) == ((0, 1, 2), (0, 1, 2), 1)
    assert select(RESULTS, ["flash_bytes"]).front == (3,)


def test_a_target_that_is_met_exactly_is_kept_whatever_the_rounding() -> None:
    target = 0.52 - 5.0 / 100
    assert target > 47 / 100
    assert select([scored(0.47), scored(0.46)], target_accuracy=target).kept == (0,)


def test_any_direction_can_be_asked_for() -> None:
    assert select(RESULTS, ["-accuracy"]).front == (3,)
    assert select(RESULTS, [Objective("flash_bytes", "maximize")]).front == (0,)
    assert [o.direction for o in objectives(list(DIRECTIONS)[:5])] == ["maximize", *["minimize"] * 4]


def test_the_best_has_the_highest_reward_and_the_front_is_there_beside_it() -> None:
    found = select(RESULTS, target_accuracy=0.9, reward=Reward(memory_reference=81.0, mu=0.5))
    assert found.best == int(np.argmax([m.accuracy - 0.5 * (m.flash_bytes + 1) / 81 for m in RESULTS[:3]]))
    assert len(found.rewards) == len(found.kept) == 3
    assert found.front
    ratio = Reward(memory_reference=81.0, accuracy_reference=0.99, form="multiplicative", tolerance=0.01)
    assert select(RESULTS, target_accuracy=0.9, reward=ratio).rewards[1] == pytest.approx(81 / 41 * math.exp(-1))


def test_nothing_kept_is_said_not_raised() -> None:
    found = select(RESULTS, target_accuracy=1.0, reward=Reward(memory_reference=1.0))
    assert (found.kept, found.front, found.knee, found.best, found.hypervolume) == ((), (), None, None, 0.0)


def test_a_reference_makes_volumes_comparable() -> None:
    small = select(RESULTS[:1], ["accuracy", "flash_bytes"], reference={"accuracy": 0.9, "flash_bytes": 100.0})
    assert small.hypervolume == pytest.approx(0.09 * 20)
    assert small.reference == (0.9, 100.0)


def test_figures_that_are_not_finite_are_not_kept() -> None:
    bad = dataclasses.replace(RESULTS[0], emd=math.nan)
    assert select([bad], ["emd"]).kept == ()
    assert select([bad], ["accuracy"]).kept == (0,)
    assert costs([], objectives(["emd"])).shape == (0, 1)


@given(st.floats(0, 1), st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.floats(0, 10))
def test_rewards_rise_with_accuracy_and_fall_with_memory(a: float, m: float, ref: float, mu: float) -> None:
    assert additive(a, m, memory_reference=ref, mu=mu) >= additive(a, 2 * m, memory_reference=ref, mu=mu)
    given_ = {"memory_reference": ref, "accuracy_reference": 0.9, "tolerance": 0.05}
    assert multiplicative(a, m, **given_) >= multiplicative(a / 2, m, **given_)
    assert multiplicative(a, m, **given_) > multiplicative(a, 2 * m, **given_) or a < 1e-3


def test_what_is_refused() -> None:
    for call in (
        lambda: objectives([]),
        lambda: objectives(["accuracy", "accuracy"]),
        lambda: objectives(["speed"]),
        lambda: objectives(list(DIRECTIONS)),
        lambda: Objective("emd", "sideways"),  # type: ignore[arg-type]
        lambda: select(RESULTS, ["emd"], reference={"accuracy": 0.1}),
        lambda: Reward(memory_reference=1.0, form="cubic"),  # type: ignore[arg-type]
        lambda: additive(0.5, -1.0, memory_reference=1.0, mu=0.1),
        lambda: multiplicative(0.5, 0.0, memory_reference=1.0, accuracy_reference=1.0, tolerance=0.1),
    ):
        with pytest.raises(DataError):
            call()

"""The error rate of giving up is verified by simulation, at the place where it is largest: exactly on the target."""

import numpy as np
import pytest

from spikequant.explore.sequential import hopeless_at
from spikequant.law.errors import DataError

N = 400


def pair(rng: np.random.Generator, reference: float, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """A reference and a candidate that loses and gains so many samples, in a random order."""
    base = np.zeros(N, dtype=bool)
    base[: round(reference * N)] = True
    other = base.copy()
    other[:lost] = False
    other[N - gained :] = True
    order = rng.permutation(N)
    return base[order], other[order]


@pytest.mark.parametrize(("lost", "gained"), [(20, 0), (40, 20), (8, 4)])
def test_who_keeps_the_target_exactly_is_given_up_no_more_often_than_stated(lost: int, gained: int) -> None:
    rng, runs, error = np.random.default_rng(lost), 1500, 0.05
    stopped = 0
    for _ in range(runs):
        base, other = pair(rng, 0.9, lost, gained)
        stopped += hopeless_at(other, base, float(other.mean()), error=error) is not None
    assert stopped / runs <= error + 3 * (error * (1 - error) / runs) ** 0.5
    assert stopped > 0  # the test is not blunt: on the boundary it does err


def test_bad_candidates_go_early_and_those_near_the_target_later() -> None:
    rng = np.random.default_rng(0)
    means = []
    for lost in (300, 120, 60):
        found = [hopeless_at(other, base, 0.89) for base, other in (pair(rng, 0.9, lost, 0) for _ in range(50))]
        assert all(at is not None for at in found)
        means.append(float(np.mean([at for at in found if at is not None])))
    assert means[0] < 0.1 * N
    assert means == sorted(means)


def test_no_more_mistakes_allowed_is_certain() -> None:
    reference = np.ones(10, dtype=bool)
    right = np.array([True, False, True, False])
    assert hopeless_at(right, reference, 0.9, error=1e-12) == 4
    assert hopeless_at(right[:3], reference, 0.9, error=1e-12) is None
    assert hopeless_at(np.array([True]), reference, 1.1) == 1  # a target beyond reach


def test_looking_more_often_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    base, other = pair(rng, 0.9, 90, 5)
    at = hopeless_at(other, base, 0.88)
    assert at is not None
    assert [hopeless_at(other[:n], base, 0.88) for n in (at - 1, at, at + 1)] == [None, at, at]


def test_who_cannot_fail_any_more_is_never_given_up() -> None:
    reference = np.zeros(20, dtype=bool)
    right = np.ones(20, dtype=bool)
    right[10:] = False
    assert hopeless_at(right, reference, 0.5, error=0.5) is None


def test_what_is_refused() -> None:
    for right, error in ((np.ones(3, dtype=bool), 0.1), (np.ones(0, dtype=bool), 0.1), (np.ones(1, dtype=bool), 0.0)):
        with pytest.raises(DataError):
            hopeless_at(right, np.ones(2, dtype=bool), 0.5, error=error)

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.explore.pareto import front, hypervolume, knee
from spikequant.law.errors import DataError

GRID = 5


@st.composite
def point_sets(draw: Any, most: int = 12) -> np.ndarray:
    """Few different values, so that ties and doubles are frequent."""
    k, n = draw(st.integers(1, 5)), draw(st.integers(1, most))
    values = draw(st.lists(st.integers(0, GRID - 1), min_size=k * n, max_size=k * n))
    return np.array(values, dtype=np.float64).reshape(n, k)


def dominates(p: np.ndarray, q: np.ndarray) -> bool:
    return all(a <= b for a, b in zip(p, q, strict=True)) and any(a < b for a, b in zip(p, q, strict=True))


def cells(points: np.ndarray, side: int) -> int:
    """Unit cells of ``[0, side]^K`` whose lower corner some point is at or below: the volume, counted."""
    corners = itertools.product(range(side), repeat=points.shape[1])
    return sum(any(all(p <= c) for p in points) for c in map(np.array, corners))


@given(point_sets(most=30))
def test_the_front_is_what_pairwise_comparison_leaves(points: np.ndarray) -> None:
    expected = [i for i, q in enumerate(points) if not any(dominates(p, q) for p in points)]
    assert front(points).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(point_sets(most=6))
def test_the_volume_is_the_number_of_cells(points: np.ndarray) -> None:
    side = {1: GRID, 2: GRID, 3: GRID, 4: 4, 5: 3}[points.shape[1]]
    assert hypervolume(points, (float(side),) * points.shape[1]) == cells(points, side)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_the_volume_of_real_points_is_that_of_another_implementation(k: int) -> None:
    optuna = pytest.importorskip("optuna", reason="an oracle that need not be installed")
    wfg = pytest.importorskip("optuna._hypervolume", reason="an inner function of optuna").compute_hypervolume
    del optuna
    rng = np.random.default_rng(k)
    points = rng.random((40, k))
    reference = np.full(k, 1.1)
    assert hypervolume(points, tuple(reference)) == pytest.approx(wfg(points, reference), rel=1e-12)


def test_a_point_more_never_makes_the_volume_smaller() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((25, 5))
    volumes = [hypervolume(points[:n], (1.0,) * 5) for n in range(1, 26)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(volumes))
    assert volumes[-1] > volumes[0]


def test_the_volume_beyond_the_reference_is_nothing() -> None:
    assert hypervolume([[2.0, 0.0], [0.0, 2.0]], (1.0, 1.0)) == 0.0
    assert hypervolume(np.zeros((0, 3)), (1.0, 1.0, 1.0)) == 0.0


def test_the_knee_is_on_the_front_and_lies_deepest() -> None:
    x = np.linspace(0.01, 1, 200)
    curve = np.stack([x, 0.01 / x], axis=1)  # symmetric: it bends at x = 0.1
    assert abs(curve[knee(curve)][0] - 0.1) < 0.01
    inner = np.concatenate([curve, [[0.5, 0.5]]])
    assert knee(inner) == knee(curve)
    assert knee([[1.0, 2.0]]) == 0
    assert knee([[1.0, 7.0], [2.0, 7.0]]) == 0


def test_shapes_and_values_that_mean_nothing() -> None:
    for points in ([1.0, 2.0], np.zeros((2, 6)), np.zeros((2, 0)), [[np.nan, 1.0]]):
        with pytest.raises(DataError):
            front(points)
    with pytest.raises(DataError, match="at least one"):
        knee(np.zeros((0, 2)))
    with pytest.raises(DataError, match="2 finite numbers"):
        hypervolume([[1.0, 2.0]], (1.0,))
    assert front(np.zeros((0, 2))).tolist() == []


def test_an_infinite_objective_has_no_knee() -> None:
    for at in (math.inf, -math.inf):
        with pytest.raises(DataError, match="infinite"):
            knee([[at, 0.0]])

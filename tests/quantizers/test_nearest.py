"""The nearest level of every quantizer, against a search over all levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikequant.quantizers import LSQ, Binary, FixedPoint, PowerOfTwo, Quantizer, Ternary, Uniform, nearest_codes

ALL: list[Quantizer] = [
    Uniform(2),
    Uniform(4, grid="symmetric"),
    Uniform(3, grid="full_range"),
    Uniform(3, signed=False),
    PowerOfTwo(4),
    Ternary(),
    Binary(),
    LSQ(3),
    FixedPoint("Q1.3"),
]


@pytest.mark.parametrize("quantizer", ALL, ids=lambda q: q.name)
def test_no_level_is_nearer(quantizer):
    units = 12 * torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = nearest_codes(quantizer, units).numpy()
    levels = np.array(list(quantizer.levels), dtype=np.float64)
    assert set(codes) <= set(levels)
    distance = np.abs(units.numpy()[:, None] - levels)
    assert (np.abs(units.numpy() - codes) == distance.min(1)).all()


def test_a_level_stays_and_the_shape_too():
    levels = torch.tensor(list(PowerOfTwo(3).levels), dtype=torch.float64).reshape(1, 7)
    assert torch.equal(nearest_codes(PowerOfTwo(3), levels), levels)


def test_thirty_two_bits_make_no_list_of_levels():
    assert nearest_codes(FixedPoint("Q16.16"), torch.tensor([2.0**40, 3.25], dtype=torch.float64)).tolist() == [
        2.0**31 - 1,
        3.0,
    ]

"""Bytes of binary weights, counted from shapes."""

from __future__ import annotations

import pytest

from spikequant import models
from spikequant.recipes.weight_bytes import bytes_section, times_smaller, weight_counts


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (models.nmnist_net, [(128, 2, 3, 3), (128, 128, 3, 3), (2048, 128 * 8 * 8), (100, 2048)]),
        (models.gesture_net, [(128, 2, 3, 3), *[(128, 128, 3, 3)] * 4, (512, 128 * 4 * 4), (110, 512)]),
    ],
)
def test_the_papers_networks_reach_its_31(make, shapes) -> None:
    counts = []
    for shape in shapes:  # by hand, from the text of the paper on the networks
        product = 1
        for side in shape:
            product *= side
        counts.append(product)
    assert weight_counts(make) == counts
    one_bit = (4 * counts[0] + sum(counts[1:]) / 8) / (4 * sum(counts))
    assert times_smaller(counts, [0]) == pytest.approx(1 / one_bit)
    assert 30.5 < times_smaller(counts, [0]) < 32
    assert times_smaller(counts, [0, -1]) < 24


def test_the_table_names_every_network() -> None:
    text = "\n".join(bytes_section({"gesture": models.gesture_net}))
    assert "| gesture | 1,697,024 | 30.7 | 15.5 | 32.0 |" in text

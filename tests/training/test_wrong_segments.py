"""Lengths of segments that are none."""

import pytest
import torch
from torch import nn

import spikequant as sq


@pytest.mark.parametrize("steps", [0, -1, 1.5, "2"])
def test_a_segment_is_a_whole_number_of_steps(steps):
    batches = [(torch.rand(4, 3, 6), torch.zeros(3, dtype=torch.long))]
    with pytest.raises(sq.DataError, match="segment = .*; expected a whole number of time steps"):
        sq.fit(nn.Sequential(nn.Linear(6, 2), sq.nn.LIF()), batches, epochs=1, segment=steps, quiet=True)

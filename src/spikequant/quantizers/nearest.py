"""The nearest level of a quantizer, value by value: what a solver needs that chooses codes one column at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from spikequant.quantizers.interface import Quantizer
from spikequant.quantizers.straight_through import round_ste


@torch.no_grad()
def nearest_codes(quantizer: Quantizer, units: Tensor) -> Tensor:
    """The level nearest to each of `units`, which are values divided by their scale.

    ``argmin_l |u - l|`` over ``quantizer.levels``; a tie goes to the even index on equally spaced levels, down on
    others.  The rounding of the quantizer and thresholds of its own (those of `Ternary`) do not count.

    >>> from spikequant.quantizers import PowerOfTwo, Uniform
    >>> u = torch.tensor([-9.0, 0.4, 1.4, 2.9, 3.1])
    >>> nearest_codes(Uniform(3), u).tolist(), nearest_codes(PowerOfTwo(3), u).tolist()
    ([-3.0, 0.0, 1.0, 3.0, 3.0], [-4.0, 0.0, 1.0, 2.0, 4.0])
    """
    levels = quantizer.levels
    if isinstance(levels, range):
        index = round_ste((units - levels.start) / levels.step, "half_even")
        return levels.start + levels.step * index.clamp(0, len(levels) - 1)
    grid = units.new_tensor(list(levels))
    return grid[torch.bucketize(units.contiguous(), (grid[1:] + grid[:-1]) / 2)]

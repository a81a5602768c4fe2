"""Inputs that the example promised to be whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from spikequant.law.errors import DataError


def check_counts(x: Tensor, bound: int) -> None:
    """Check that `x` holds whole numbers from 0 to `bound`: the proofs hold for those alone.

    Raises:
        DataError: it does not.
    """
    if bool(((x < 0) | (x > bound) | (x != x.to(torch.int64))).any()):
        raise DataError(
            f"the example input was whole numbers from 0 to {bound}, these data go from "
            f"{float(x.min()):g} to {float(x.max()):g}; quantize the model with an example of the real data"
        )

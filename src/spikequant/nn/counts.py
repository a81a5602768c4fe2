"""Inputs that the example promised to be whole numbers."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from spikequant.law.errors import DataError
from spikequant.nn.products import kernels


def check_counts(x: Tensor, bound: int) -> None:
    """Check that `x` holds whole numbers from 0 to `bound`: the proofs hold for those alone.

    Raises:
        DataError: it does not.
    """
    if not _are_counts(x.detach(), bound):
        raise DataError(
            f"the example input was whole numbers from 0 to {bound}, these data go from "
            f"{float(x.min()):g} to {float(x.max()):g}; quantize the model with an example of the real data"
        )


def _are_counts(x: Tensor, bound: int) -> bool:
    loaded = kernels.library()
    ours = x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous() and bound < 2**24
    if loaded is None or not ours:
        return not bool(((x < 0) | (x > bound) | (x != x.to(torch.int64))).any())

    def part(start: int, stop: int) -> bool:
        return bool(loaded.sq_counts(kernels.at(x, start), ctypes.c_ssize_t(stop - start), ctypes.c_float(bound)))

    return all(kernels.shared_among_threads(part, x.numel(), 4 * x.numel()))

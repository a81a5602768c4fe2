"""Numbers that are none are refused where they come in, before they become codes."""

from __future__ import annotations

import torch
from torch import Tensor

from spikequant.law.errors import DataError


def check_tensor(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        DataError: the tensor holds one of them.
    """
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{name} holds NaN or infinite values; expected finite numbers (did the training diverge?)")

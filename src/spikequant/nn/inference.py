"""What is kept between calls is made of ordinary tensors, also inside `torch.inference_mode`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Outside of inference mode, without gradients where it was on.

    A tensor made in inference mode has no version and no place in a graph: kept codes, gains and programs that later
    calls use must not be such tensors.
    """
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield

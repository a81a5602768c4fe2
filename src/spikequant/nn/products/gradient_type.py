"""In which type the gradients of products are computed: float32, or, on request, bfloat16 as AMP does."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from spikequant.nn.asked import Asked

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ASKED = Asked("type of gradients", "SPIKEQUANT_GRADIENTS", tuple(TYPES))


def gradient_type() -> torch.dtype:
    """What is asked for here; a product keeps it from its forward pass to its backward pass."""
    return TYPES[ASKED.now() or "float32"]


def use_gradients(name: str) -> AbstractContextManager[None]:
    """Products that are made within it have their gradients in this type, ``float32`` or ``bfloat16``.

    In bfloat16 the operands of a gradient are rounded to 8 bits of mantissa, its sums are kept in float32 and its
    result is rounded once more.  Forward sums stay exact, neurons and optimizer stay in float32, and so does a backward
    pass that is itself differentiated.  For products on a CPU; meant for processors that multiply bfloat16 (AMX,
    AVX-512 BF16).  ``SPIKEQUANT_GRADIENTS`` does the same for a process.

    >>> with use_gradients("bfloat16"):
    ...     gradient_type()
    torch.bfloat16

    Raises:
        Unsupported: there is no such type of gradients.
    """
    return ASKED.within(name)


__all__ = ["gradient_type", "use_gradients"]

"""Kernels as machine code of this computer, one per kind of neuron, kept on disk."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

from spikequant.law.errors import Unsupported
from spikequant.readers.compiler import shared_object
from spikequant.readers.kernels.adjoint import adjoint
from spikequant.readers.kernels.c_text import BLOCK, Surface, backward_text, forward_text
from spikequant.readers.kernels.keys import BackwardKey, ForwardKey

FLAGS = ("-std=gnu99", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
THREADS = "-fopenmp"


class Kernel:
    """A compiled function and the arrays that it takes."""

    block = BLOCK

    def __init__(self, face: Surface, function: Any) -> None:
        self.face, self.function = face, function

    def __call__(self, sizes: Sequence[int], pointers: Sequence[int | None]) -> None:
        """Run on addresses; see `frame.c` for their order.

        Raises:
            MemoryError: there is no memory for its scratch.
        """
        failed = self.function((ctypes.c_int64 * len(sizes))(*sizes), (ctypes.c_void_p * len(pointers))(*pointers))
        if failed:
            raise MemoryError("a neuron kernel found no memory for its scratch; use smaller batches")


@cache
def forward_kernel(key: ForwardKey) -> Kernel:
    """The compiled forward pass.

    Raises:
        Unsupported: the spec has no kernel, or there is no C compiler.
    """
    tape, body = key.recorded()
    text, face = forward_text(tape, body, double=key.double, as_bytes=key.bytes, summed=key.summed)
    return Kernel(face, _compiled(text).forward)


@cache
def backward_kernel(key: BackwardKey) -> Kernel:
    """The compiled backward pass.

    Raises:
        Unsupported: the spec has no kernel, or there is no C compiler.
    """
    tape, body = key.forward.recorded()
    text, face = backward_text(tape, body, adjoint(tape, body, key.wanted), key.surrogate, double=key.forward.double)
    return Kernel(face, _compiled(text).backward)


def _compiled(text: str) -> ctypes.CDLL:
    """The library, with threads where the compiler has OpenMP."""
    try:
        return shared_object(text, (*FLAGS, THREADS), libraries=("-lm",))
    except Unsupported as error:
        if "could not compile" not in str(error):
            raise
        return shared_object(text, FLAGS, libraries=("-lm",))

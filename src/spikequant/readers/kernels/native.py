"""Kernels as machine code of this computer, one per kind of neuron, kept on disk."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from spikequant.law.errors import Unsupported
from spikequant.law.spec import NeuronSpec
from spikequant.readers.compiler import shared_object
from spikequant.readers.kernels.adjoint import Wanted, adjoint
from spikequant.readers.kernels.body import step_body
from spikequant.readers.kernels.c_text import BLOCK, Surface, backward_text, forward_text
from spikequant.readers.kernels.tape import record_step

FLAGS = ("-std=gnu99", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
THREADS = "-fopenmp"


@dataclass(frozen=True)
class ForwardKey:
    """What decides the text of a forward kernel: spec, names of the prepared parameters, number types.

    Attributes:
        bytes: the output is written as uint8: spikes of 0 to 255.
    """

    spec: NeuronSpec
    params: tuple[str, ...]
    compares: int
    rounds: bool
    double: bool
    bytes: bool = False


@dataclass(frozen=True)
class BackwardKey:
    """The same for gradients: besides, which are wanted, and the surrogate's name (not its slope)."""

    forward: ForwardKey
    wanted: Wanted
    surrogate: str


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
    tape = record_step(key.spec, key.params, compares=key.compares)
    text, face = forward_text(tape, step_body(tape, rounds=key.rounds), double=key.double, as_bytes=key.bytes)
    return Kernel(face, _compiled(text).forward)


@cache
def backward_kernel(key: BackwardKey) -> Kernel:
    """The compiled backward pass.

    Raises:
        Unsupported: the spec has no kernel, or there is no C compiler.
    """
    forward = key.forward
    tape = record_step(forward.spec, forward.params, compares=forward.compares)
    body = step_body(tape, rounds=forward.rounds)
    text, face = backward_text(tape, body, adjoint(tape, body, key.wanted), key.surrogate, double=forward.double)
    return Kernel(face, _compiled(text).backward)


def _compiled(text: str) -> ctypes.CDLL:
    """The library, with threads where the compiler has OpenMP."""
    try:
        return shared_object(text, (*FLAGS, THREADS), libraries=("-lm",))
    except Unsupported as error:
        if "could not compile" not in str(error):
            raise
        return shared_object(text, FLAGS, libraries=("-lm",))

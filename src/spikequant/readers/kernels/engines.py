"""What prints and compiles a kernel here: C where there is a compiler, else numba."""

from __future__ import annotations

from spikequant.readers.kernels.keys import BackwardKey, ForwardKey
from spikequant.readers.kernels.native import Kernel, backward_kernel, forward_kernel
from spikequant.readers.kernels.numba_kernel import NumbaKernel, numba_backward_kernel, numba_forward_kernel

ENGINES = ("c", "numba")
"""In the order in which they are taken."""


def forward_of(engine: str, key: ForwardKey) -> Kernel | NumbaKernel:
    """The forward pass.

    Raises:
        Unsupported: the spec has no kernel, or what the engine needs is not here.
    """
    return numba_forward_kernel(key) if engine == "numba" else forward_kernel(key)


def backward_of(engine: str, key: BackwardKey) -> Kernel | NumbaKernel:
    """The backward pass.

    Raises:
        Unsupported: the spec has no kernel, or what the engine needs is not here.
    """
    return numba_backward_kernel(key) if engine == "numba" else backward_kernel(key)


__all__ = ["ENGINES", "backward_of", "forward_of"]

"""Kernels of a neuron over time, generated from the law: forward, and backward with the surrogate.

`tape.py` records a step with parameters that stay arguments, `body.py` gives it as lines, `adjoint.py` its
gradients, `c_text.py` prints and `native.py` compiles.
"""

from spikequant.readers.kernels.adjoint import LSB, Wanted, adjoint
from spikequant.readers.kernels.body import step_body
from spikequant.readers.kernels.c_text import SURROGATES, Surface
from spikequant.readers.kernels.native import BackwardKey, ForwardKey, Kernel, backward_kernel, forward_kernel
from spikequant.readers.kernels.tape import Tape, TapeOps, Value, record_step

__all__ = [
    "LSB", "SURROGATES", "BackwardKey", "ForwardKey", "Kernel", "Surface", "Tape", "TapeOps", "Value", "Wanted",
    "adjoint", "backward_kernel", "forward_kernel", "record_step", "step_body",
]  # fmt: skip

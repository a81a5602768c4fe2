"""Kernels of a neuron over time, generated from the law: forward, and backward with the surrogate.

`keys.py` says what decides a kernel.  `tape.py` records a step with parameters that stay arguments, `body.py` gives it
as lines, `adjoint.py` its gradients.  `c_text.py` prints C and `native.py` compiles it; `numba_text.py` and
`numba_kernel.py` do the same where there is no compiler; `engines.py` knows both.
"""

from spikequant.readers.kernels.adjoint import LSB, Wanted, adjoint
from spikequant.readers.kernels.body import step_body
from spikequant.readers.kernels.c_text import SURROGATES, Surface
from spikequant.readers.kernels.engines import ENGINES, backward_of, forward_of
from spikequant.readers.kernels.keys import BackwardKey, ForwardKey
from spikequant.readers.kernels.native import Kernel, backward_kernel, forward_kernel
from spikequant.readers.kernels.tape import Tape, TapeOps, Value, record_step

__all__ = [
    "ENGINES", "LSB", "SURROGATES", "BackwardKey", "ForwardKey", "Kernel", "Surface", "Tape", "TapeOps", "Value",
    "Wanted", "adjoint", "backward_kernel", "backward_of", "forward_kernel", "forward_of", "record_step", "step_body",
]  # fmt: skip

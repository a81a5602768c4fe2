"""What decides the text of a kernel, whatever engine prints it."""

from __future__ import annotations

from dataclasses import dataclass

from spikequant.law.spec import NeuronSpec
from spikequant.readers.kernels.adjoint import Wanted
from spikequant.readers.kernels.body import Body, step_body
from spikequant.readers.kernels.tape import Tape, record_step


@dataclass(frozen=True)
class ForwardKey:
    """Of a forward pass: spec, names of the prepared parameters, number types.

    Attributes:
        bytes: the output is written as uint8: spikes of 0 to 255.
        summed: of bytes: one row, the sum over all steps, which a byte must hold.
    """

    spec: NeuronSpec
    params: tuple[str, ...]
    compares: int
    rounds: bool
    double: bool
    bytes: bool = False
    summed: bool = False

    def recorded(self) -> tuple[Tape, Body]:
        """The law's step on a tape, and its lines.

        Raises:
            Unsupported: the spec has no kernel.
        """
        tape = record_step(self.spec, self.params, compares=self.compares)
        return tape, step_body(tape, rounds=self.rounds)


@dataclass(frozen=True)
class BackwardKey:
    """The same for gradients: besides, which are wanted, and the surrogate's name (not its slope)."""

    forward: ForwardKey
    wanted: Wanted
    surrogate: str

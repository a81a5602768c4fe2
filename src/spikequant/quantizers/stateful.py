"""Quantizers that keep more than a scale: slopes, boundaries, a learned basis, a temperature.

The class stays a frozen description.  What it learns are named tensors (`State`) that the layer holds, as parameters
or buffers called ``weight_<name>``, so that ``state_dict``, optimizers, copies and checkpoints carry them.  Two forms
of one function belong to it: the soft one that a training step runs, and the hard one, whose codes are integers and
which evaluation, `freeze` and every integer reader see.  Used without a state (a bias, a threshold), it is the plain
rule of its `codes`.
"""

from __future__ import annotations

from typing import Protocol, TypeGuard, runtime_checkable

from torch import Tensor

from spikequant.quantizers.interface import Quantizer

State = dict[str, Tensor]
"""What a stateful quantizer keeps of one tensor, by name."""


class StatefulQuantizer(Quantizer, Protocol):
    """A quantizer whose codes depend on tensors of its own; `check_quantizer` tries these functions, too."""

    @property
    def learned(self) -> tuple[str, ...]:
        """Names in the state that gradients train; the others are buffers."""
        ...

    def start(self, x: Tensor, *, channel_axis: int | None = None) -> State:
        """A state for `x`, detached, the same names and shapes for every `x` of that shape.

        Raises:
            DataError: `x` is empty or not finite, or has no such axis.
        """
        ...

    def state_codes(self, x: Tensor, scale: Tensor, state: State, *, soft: bool, noise: Tensor | None = None) -> Tensor:
        """Codes of `x`: levels where `soft` is False; else the function that training runs, real numbers allowed."""
        ...

    def learn_(self, x: Tensor, scale: Tensor, state: State) -> None:
        """What a training step changes without a gradient (a moving average), in place; called before `state_codes`."""
        ...

    def progress_(self, state: State, done: float, epochs: int) -> None:
        """Bring schedules to `done` of `epochs` epochs (a fraction within an epoch), in place."""
        ...


@runtime_checkable
class HasCodebook(Protocol):
    """A stateful quantizer whose levels differ from channel to channel; its codes are integers in training, too.

    `levels` are then all integers that a level can be, of which a channel uses at most ``2^bits``.
    """

    def codebook(self, scale: Tensor, state: State) -> Tensor:
        """Integers ``[C, bits]``: the levels of a channel are the sums of its row with any signs."""
        ...


def is_stateful(quantizer: Quantizer) -> TypeGuard[StatefulQuantizer]:
    """Whether `quantizer` keeps a state.

    >>> from spikequant.quantizers.ternary import Ternary
    >>> is_stateful(Ternary())
    False
    """
    return hasattr(quantizer, "start") and hasattr(quantizer, "state_codes")


__all__ = ["HasCodebook", "State", "StatefulQuantizer", "is_stateful"]

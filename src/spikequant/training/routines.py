"""What accompanies a training from step to step: averages, frozen scales, falling bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


class Routine(ABC):
    """Something that changes the model, or watches it, while `fit` trains it.

    `fit` calls ``begin``, then ``restore`` where a checkpoint goes on, then for every epoch ``before_epoch``, after
    every step of the optimizer ``after_step``, for validation and callbacks ``shown``, and at the very end ``end``.
    What must survive a kill stands in ``state``.
    """

    @property
    def name(self) -> str:
        """Under which its state stands in the checkpoint."""
        return type(self).__name__

    def begin(self, model: nn.Module, epochs: int) -> None:
        """Look at the model before the first epoch; raise where the routine has no meaning for it."""
        return

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Epoch number `epoch`, from 0, begins."""
        return

    def after_step(self, model: nn.Module, done: float, epochs: int) -> None:
        """The optimizer moved the weights; `done` epochs are done, with the fraction of the running one."""
        return

    @contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """While the block runs, the model is as it will be given away (for validation, and for ``on_epoch``)."""
        yield

    def end(self, model: nn.Module) -> None:
        """The training is over, or was interrupted: leave the model as it is to be used."""
        return

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What the next epoch depends on, by name: the checkpoint carries it."""

    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave; weights and optimizer are restored already."""
        return


__all__ = ["Routine"]

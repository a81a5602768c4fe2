"""Averaged weights: what is validated and given away is a moving average of what the optimizer moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.training.routines import Routine
from spikequant.training.step import check_number


@final
class WeightAverage(Routine):
    """``a <- a + (1 - d_k) (w - a)`` after every step, ``d_k = min(decay, (1 + k) / (10 + k))`` in step ``k``.

    All parameters and the floating buffers that `state_dict` holds (statistics, scales) are averaged.  The optimizer
    goes on with the weights themselves; validation, ``on_epoch`` and the end of `fit` show the average.
    Source: Polyak and Juditsky 1992; the slow start is that of TensorFlow's ExponentialMovingAverage.

    Raises:
        DataError: `decay` is not in ``0 .. 1``, or 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = check_number("WeightAverage", "decay", decay, low=0.0, high=1.0)
        if self.decay == 1.0:
            raise DataError("WeightAverage: decay = 1 would never leave the first weights; expected less than 1")
        self.steps = 0
        self.average: dict[str, Tensor] = {}

    def begin(self, model: nn.Module, epochs: int) -> None:
        """The average starts with the weights of now."""
        self.steps = 0
        self.average = {name: value.detach().clone() for name, value in _floating(model)}

    @torch.no_grad()
    def after_step(self, model: nn.Module, done: float, epochs: int) -> None:
        """One more step goes into the average."""
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in _floating(model):
            self.average[name].lerp_(value, share)
        self.steps += 1

    @contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """The average takes the place of the weights."""
        own = {name: value.detach().clone() for name, value in _floating(model)}
        _put(model, self.average)
        try:
            yield
        finally:
            _put(model, own)

    def end(self, model: nn.Module) -> None:
        """The average is what remains."""
        if self.steps:
            _put(model, self.average)

    def state(self) -> dict[str, Tensor]:
        """The average and the number of its steps."""
        return {**{f"average/{name}": t for name, t in self.average.items()}, "steps": torch.tensor(self.steps)}

    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Go on with an average.

        Raises:
            DataError: it is one of another model.
        """
        average = {name.removeprefix("average/"): t for name, t in state.items() if name.startswith("average/")}
        shapes = {name: value.shape for name, value in _floating(model)}
        if shapes != {name: value.shape for name, value in average.items()} or "steps" not in state:
            raise DataError("WeightAverage: the stored average is one of another model")
        devices = {name: value.device for name, value in _floating(model)}
        self.average = {name: t.detach().clone().to(devices[name]) for name, t in average.items()}
        self.steps = int(state["steps"])


def _floating(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that can be averaged; what is not stored (membranes of a batch) is no weight."""
    stored = model.state_dict(keep_vars=True)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name in stored and value.is_floating_point():
            yield name, value


@torch.no_grad()
def _put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, value in _floating(model):
        value.copy_(values[name])


__all__ = ["WeightAverage"]

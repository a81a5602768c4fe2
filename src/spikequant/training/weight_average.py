"""Averaged weights: what is validated and given away is a moving average of what the optimizer moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.nn import Synapse
from spikequant.training.routines import Routine
from spikequant.training.step import check_number


@final
class WeightAverage(Routine):
    """``a <- a + (1 - d_k) (w - a)`` after every step, ``d_k = min(decay, (1 + k) / (10 + k))`` in step ``k``.

    All parameters and the floating buffers that `state_dict` holds (statistics, scales) are averaged.  The optimizer
    goes on with the weights themselves; validation, ``on_epoch`` and the end of `fit` show the average.  When layers
    change their bits (`GradualBits`) it begins anew: scales of different widths have no mean.
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
        self._bits: list[int] = []

    def begin(self, model: nn.Module, epochs: int) -> None:
        """The average starts with the weights of now."""
        self.steps, self._bits = 0, list(_bits(model).values())
        self.average = {name: value.detach().clone() for name, value in _floating(model)}

    @torch.no_grad()
    def after_step(self, model: nn.Module, done: float, epochs: int) -> None:
        """One more step goes into the average, or is the first of a new one where bits have changed."""
        if list(_bits(model).values()) != self._bits:
            self.begin(model, epochs)
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
        """The average is what remains; a layer whose bits were changed since keeps the scale of its bits."""
        if self.steps:
            now = _bits(model)
            changed = {path for path, then in zip(now, self._bits, strict=True) if now[path] != then}
            own = {name: value.detach().clone() for name, value in _floating(model)}
            _put(model, {n: own[n] if _layer_of_scale(n) in changed else t for n, t in self.average.items()})

    def state(self) -> dict[str, Tensor]:
        """The average, the number of its steps and the bits of the layers that it is of."""
        average = {f"average/{name}": t for name, t in self.average.items()}
        return {**average, "steps": torch.tensor(self.steps), "bits": torch.tensor(self._bits)}

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
        self._bits = state["bits"].tolist() if "bits" in state else self._bits


def _floating(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that can be averaged; what is not stored (membranes of a batch) is no weight."""
    stored = model.state_dict(keep_vars=True)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name in stored and value.is_floating_point():
            yield name, value


def _bits(model: nn.Module) -> dict[str, int]:
    return {path: module.quantizer.bits for path, module in model.named_modules() if isinstance(module, Synapse)}


def _layer_of_scale(name: str) -> str | None:
    """The path of the layer whose weight scale a tensor is; None for all others."""
    path, _, last = name.rpartition(".")
    return path if last == "weight_scale" else None


@torch.no_grad()
def _put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, value in _floating(model):
        value.copy_(values[name])


__all__ = ["WeightAverage"]

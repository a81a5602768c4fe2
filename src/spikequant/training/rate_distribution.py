"""Firing-preserving training: the distribution of a layer's rates stays that of a network that was there before."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import final

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.training.distillation import Teacher
from spikequant.training.step import LossTerm, Step, Watched, check_weight
from spikequant.training.watch import SpikeWatch


def sorted_distance(rates: Tensor, wanted: Tensor) -> Tensor:
    """``mean_i |r_(i) - R_(i)|`` over sorted rates: the EMD of two sets of one size, with a gradient.

    The gradient of the i-th smallest rate is the sign of its distance from the i-th smallest that is wanted.

    >>> r = torch.tensor([0.5, 0.0, 0.75], requires_grad=True)
    >>> distance = sorted_distance(r, torch.tensor([0.5, 0.25, 0.5]))
    >>> round(distance.item(), 4), [round(g, 4) for g in torch.autograd.grad(distance, r)[0].tolist()]
    (0.1667, [0.0, -0.3333, 0.3333])
    """
    return (rates.reshape(-1).sort().values - wanted.reshape(-1).sort().values).abs().mean()


@final
class RateDistribution(LossTerm):
    """``mean over layers of mean_i |r_(i) - R_(i)|``: sorted rates of the neurons over steps and samples of the batch.

    The measure that `compare` reports as EMD, as a term of the loss.  Neurons are not matched, so
    that a layer may move its work between them as long as as many fire as often as before
    (`RateDistillation` ties each neuron to its own rate in each sample).

    Args:
        teacher: a `Teacher`, or the network to make one of, as it was before `quantize_`; layers are matched by path.
        layers: shell pattern of the paths.
        weight: factor of the term; the EMD is small (0.01), so that weights around 10 compare with a loss of 0.1.

    Raises:
        DataError: a weight out of its range, no layer that both networks have under one path, or one of other size.
    """

    watches: frozenset[Watched] = frozenset({"spikes"})

    def __init__(self, teacher: Teacher | nn.Module, *, layers: str = "*", weight: float = 10.0) -> None:
        self.teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
        self.layers = layers
        self.weight = check_weight("RateDistribution", weight)

    def prepare(self, model: nn.Module) -> None:
        """Match the layers."""
        own, theirs = SpikeWatch(model).layers, SpikeWatch(self.teacher.model).layers
        if not [path for path in own if path in theirs and fnmatchcase(path, self.layers)]:
            raise DataError(
                f"RateDistribution: no spiking layer {self.layers!r} that model ({', '.join(own)}) and teacher "
                f"({', '.join(theirs)}) share by path"
            )

    def of(self, step: Step) -> Tensor:
        """Mean EMD of the layers."""
        _, wanted = self.teacher.answer(step.x)
        parts = [
            self._distance(path, train.mean((0, 1)), wanted[path].mean(0))
            for path, train in step.spikes.items()
            if path in wanted and fnmatchcase(path, self.layers)
        ]
        return torch.stack(parts).mean()

    def _distance(self, path: str, rates: Tensor, wanted: Tensor) -> Tensor:
        if rates.numel() != wanted.numel():
            raise DataError(
                f"RateDistribution: {path} has {rates.numel()} neurons, in the teacher {wanted.numel()}; "
                "expected the network from before quantize_"
            )
        return sorted_distance(rates, wanted)


__all__ = ["RateDistribution", "sorted_distance"]

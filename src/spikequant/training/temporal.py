"""The temporal efficient loss: every step of time must answer right, not only their mean."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor

from spikequant.law.errors import DataError
from spikequant.training.step import LossTerm, Step, Watched, check_number, check_weight


@final
class TemporalLoss(LossTerm):
    """``(1 - lambda) mean_t CE(O[t], y) + lambda mean (O - phi)^2`` over the outputs ``O[t]`` of every step.

    Use it with ``fit(..., loss=None)`` to have it in place of the cross entropy of the mean output.
    Source: Deng et al., *Temporal efficient training of spiking neural network via gradient re-weighting*, ICLR 2022,
    equations 9 to 11; there ``lambda`` is 0.05 (static images) or 0.001 and ``phi`` the threshold.

    >>> import torch
    >>> outputs = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])  # [T, N, classes]
    >>> step = Step(model=torch.nn.Identity(), x=outputs, target=torch.tensor([0]), output=outputs, outputs=outputs)
    >>> round(TemporalLoss(0.0).of(step).item(), 4)  # (ln(1 + e^-2) + ln 2) / 2
    0.41

    Args:
        regular: ``lambda``, from 0 to 1.
        target: ``phi``, what all outputs are pulled to.
        weight: factor of the whole term.

    Raises:
        DataError: a number out of its range.
    """

    watches: frozenset[Watched] = frozenset({"outputs"})

    def __init__(self, regular: float = 0.05, *, target: float = 1.0, weight: float = 1.0) -> None:
        self.regular = check_number("TemporalLoss", "regular", regular, low=0.0, high=1.0)
        self.target = check_number("TemporalLoss", "target", target, low=-1e30)
        self.weight = check_weight("TemporalLoss", weight)

    def of(self, step: Step) -> Tensor:
        """The loss of all steps of time."""
        train = step.outputs
        if train is None or train.dim() != 3 or train.shape[1] != len(step.target):
            given = None if train is None else tuple(train.shape)
            raise DataError(
                f"TemporalLoss: expected outputs [T, N, classes] of {len(step.target)} targets, got {given}"
            )
        repeated = step.target.unsqueeze(0).expand(len(train), *step.target.shape)
        loss = F.cross_entropy(train.flatten(0, 1), repeated.flatten(0, 1))
        if self.regular == 0.0:
            return loss
        return (1 - self.regular) * loss + self.regular * (train - self.target).square().mean()


__all__ = ["TemporalLoss"]

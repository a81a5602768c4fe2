"""What a training tells: its epochs, and whether it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch.

    Attributes:
        epoch: its number, from 1.
        loss, accuracy: means over its samples, while the weights moved.
        validation: accuracy afterwards, where there are validation batches.
        lr: learning rate of the last step (of the first parameter group).
        samples: how many were seen.
        seconds: wall time without the validation; two equal trainings may differ in it.
        terms: means of the additional terms of the loss by name, without their weights.
    """

    epoch: int
    loss: float
    accuracy: float
    validation: float | None = None
    lr: float = 0.0
    samples: int = 0
    seconds: float = field(default=0.0, compare=False)
    terms: Mapping[str, float] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: a line of a log.

        >>> Epoch(epoch=1, loss=0.5, accuracy=0.75, samples=8).to_dict()["loss"]
        0.5
        """
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """The history of a training, also across resumes; ``interrupted``: Ctrl-C ended it early."""

    epochs: tuple[Epoch, ...] = field(default=())
    interrupted: bool = False

    @property
    def loss(self) -> float:
        """Loss of the last epoch."""
        return self.epochs[-1].loss if self.epochs else float("nan")

"""What one step of training shows, and what may add to its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from spikequant.law.errors import DataError

Watched = Literal["spikes", "outputs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One batch on its way through the model, before the backward pass; tensors carry gradients.

    Attributes:
        model: the model that trains.
        x, target: the batch.
        output: what the model answers.
        spikes: of every spiking layer by path, in the order in which they run, ``[T, N, *features]`` in spikes (1, or
            a count); empty unless a term watches them.
        outputs: the answer at every step of time, ``[T, N, classes]``; None unless a term watches it.
        done: epochs done, with the fraction of the running one.
        epochs: how many there will be.
    """

    model: nn.Module
    x: Tensor
    target: Tensor
    output: Tensor
    spikes: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Tensor | None = None
    done: float = 0.0
    epochs: int = 1


class LossTerm(ABC):
    """A summand of the loss: ``weight * term.of(step)``.

    Attributes:
        weight: its factor, 0 or more; a term may change it as training goes on.
        watches: what `Step` must hold for it: ``"spikes"``, ``"outputs"``.
    """

    weight: float = 1.0
    watches: frozenset[Watched] = frozenset()

    @property
    def name(self) -> str:
        """Under which its mean stands in the history."""
        return type(self).__name__

    def prepare(self, model: nn.Module) -> None:
        """Look at the model once, before the first step; raise where the term has no meaning for it."""
        return

    @abstractmethod
    def of(self, step: Step) -> Tensor:
        """The term without its weight: a scalar with a gradient."""


def check_weight(owner: str, weight: float) -> float:
    """`weight` of a term, or a `DataError`.

    >>> check_weight("TemporalLoss", 0.5)
    0.5
    """
    return check_number(owner, "weight", weight, low=0.0)


def check_number(owner: str, field_name: str, value: float, *, low: float, high: float = float("inf")) -> float:
    """`value` as a float in ``low .. high``, finite.

    Raises:
        DataError: it is none.
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not good or value in (float("inf"), float("-inf")):
        upto = "or more" if high == float("inf") else f"to {high:g}"
        raise DataError(f"{owner}: {field_name} = {value!r}; expected a number, {low:g} {upto}")
    return float(value)


__all__ = ["LossTerm", "Step", "Watched", "check_number", "check_weight"]

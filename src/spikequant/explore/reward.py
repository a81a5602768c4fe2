"""Rewards: accuracy and memory as one number, for those who want one.  The front is beside it, always.

Source: R. V. W. Putra, M. Shafique, "Q-SpiNN: A Framework for Quantizing Spiking Neural Networks", IJCNN 2021,
ranks the candidates that keep the target accuracy by a benefit of memory and accuracy.  The page of that equation
was not at hand; `additive` is the form of the same authors' later work, `multiplicative` ours for a summary that says
"memory saving times a penalty for the gap in accuracy".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from spikequant.law.errors import DataError

RewardForm = Literal["additive", "multiplicative"]
FORMS: tuple[RewardForm, ...] = get_args(RewardForm)


def additive(accuracy: float, memory: float, *, memory_reference: float, mu: float) -> float:
    """``accuracy - mu * memory / memory_reference``; `mu` is the accuracy that all of the memory is worth.

    >>> additive(0.9, 25.0, memory_reference=100.0, mu=0.2)
    0.85

    Raises:
        DataError: a memory that is negative, a reference that is not positive, a negative mu, NaN.
    """
    _check(accuracy, memory, memory_reference, mu, "mu")
    return accuracy - mu * memory / memory_reference


def multiplicative(
    accuracy: float, memory: float, *, memory_reference: float, accuracy_reference: float, tolerance: float
) -> float:
    """``memory_reference / memory * exp(-max(0, accuracy_reference - accuracy) / tolerance)``.

    The saving, e times less for every `tolerance` of accuracy that is lost; a gain in accuracy adds nothing.

    >>> multiplicative(0.9, 25.0, memory_reference=100.0, accuracy_reference=0.9, tolerance=0.01)
    4.0

    Raises:
        DataError: memory or tolerance that is not positive, NaN.
    """
    _check(accuracy, memory, memory_reference, tolerance, "tolerance")
    if not (memory > 0 and tolerance > 0 and math.isfinite(accuracy_reference)):
        raise DataError(
            f"reward: memory {memory}, tolerance {tolerance}, accuracy of the reference {accuracy_reference}; expected "
            "the first two above 0 and all of them finite"
        )
    return memory_reference / memory * math.exp(-max(0.0, accuracy_reference - accuracy) / tolerance)


def _check(accuracy: float, memory: float, memory_reference: float, weight: float, name: str) -> None:
    finite = all(math.isfinite(v) for v in (accuracy, memory, memory_reference, weight))
    if not finite or memory < 0 or memory_reference <= 0 or weight < 0:
        raise DataError(
            f"reward: accuracy {accuracy}, memory {memory} of {memory_reference}, {name} {weight}; expected finite "
            "numbers, memory and weight of 0 or more and a reference above 0"
        )


@dataclass(frozen=True, kw_only=True)
class Reward:
    """A reward with its weights and the reference network that it compares with.

    Attributes:
        form: ``additive`` or ``multiplicative``.
        mu: of the additive form.
        tolerance: of the multiplicative form.
        accuracy_reference, memory_reference: of the real network; memory is flash and RAM, in bytes.

    >>> Reward(memory_reference=100.0, mu=0.2)(0.9, 25.0)
    0.85

    Raises:
        DataError: another form, and what the forms refuse.
    """

    memory_reference: float
    accuracy_reference: float = 1.0
    form: RewardForm = "additive"
    mu: float = 0.1
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise DataError(f"reward: form {self.form!r}; expected one of {', '.join(FORMS)}")

    def __call__(self, accuracy: float, memory: float) -> float:
        """The reward of a network."""
        forms: dict[str, Callable[[], float]] = {
            "additive": lambda: additive(accuracy, memory, memory_reference=self.memory_reference, mu=self.mu),
            "multiplicative": lambda: multiplicative(
                accuracy,
                memory,
                memory_reference=self.memory_reference,
                accuracy_reference=self.accuracy_reference,
                tolerance=self.tolerance,
            ),
        }
        return forms[self.form]()

"""Which candidate a trial is: a function of the study's seed, the trial's number and the trials before its batch.

No sampler lives longer than one proposal, so a study that was killed and resumed proposes what it would have proposed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from spikequant.explore.factors import Axis
from spikequant.explore.selection import Direction
from spikequant.explore.space import Space
from spikequant.law.errors import PlanError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SAMPLERS: Final = ("grid", "random", "tpe", "nsga2")
MOST_ATTEMPTS = 8


@dataclass(frozen=True)
class Proposal:
    """A choice of every axis, and what the sampler wants to be remembered with it."""

    point: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)


class Proposer(Protocol):
    """Who proposes; one that `looks_back` wants to know what was proposed before."""

    looks_back: bool

    def propose(self, number: int, taken: set[str]) -> Proposal:
        """The candidate of trial `number`; `taken` has the keys of those that are measured or under way."""
        ...

    def learn(self, trial: FrozenTrial) -> None:
        """A trial has ended, and may be used for the batches that follow."""
        ...


@final
class ByNumber:
    """Grid and random: trial n is candidate n, or candidate n of a permutation; no candidate comes twice."""

    looks_back = False

    def __init__(self, space: Space, sampler: str, seed: int) -> None:
        self._space, self._shuffled, self._seed = space, sampler == "random", seed

    def propose(self, number: int, taken: set[str]) -> Proposal:
        """See `Proposer`."""
        size = self._space.size
        index = permuted(number % size, size, self._seed) if self._shuffled else number % size
        return Proposal(self._space.point_at(index))

    def learn(self, trial: FrozenTrial) -> None:
        """What was measured changes nothing here."""


@final
class BySampler:
    """TPE and NSGA-II of Optuna, on a study in memory that holds the finished trials."""

    looks_back = True

    def __init__(
        self, space: Space, sampler: str, seed: int, directions: Sequence[Direction], options: Mapping[str, Any]
    ) -> None:
        import optuna

        self._space, self._name, self._seed, self._options = space, sampler, seed, dict(options)
        self._distributions = distributions(space.axes)
        with quiet_optuna():
            self._study: Study = optuna.create_study(directions=list(directions))

    def propose(self, number: int, taken: set[str]) -> Proposal:
        """See `Proposer`; a candidate that was measured is drawn anew, at last from those that are left."""
        for attempt in range(MOST_ATTEMPTS):
            found = self._drawn(number, attempt)
            if self._space.candidate(found.point).key not in taken:
                return found
        size = self._space.size
        for k in range(size):
            index = permuted((number + k) % size, size, self._seed)
            if self._space.at(index).key not in taken:
                return Proposal(self._space.point_at(index))
        return found

    def learn(self, trial: FrozenTrial) -> None:
        """See `Proposer`."""
        self._study.add_trial(trial)

    def _drawn(self, number: int, attempt: int) -> Proposal:
        from optuna.trial import TrialState

        self._study.sampler = _sampler(self._name, derived_seed(self._seed, number, attempt), self._options)
        trial = self._study.ask(self._distributions)
        notes = dict(self._study.get_trials(deepcopy=False)[trial.number].system_attrs)
        self._study.tell(trial, state=TrialState.FAIL)  # samplers pass over it; its end is learnt, once it is known
        return Proposal({axis.name: trial.params[axis.name] for axis in self._space.axes}, notes)


def proposer(
    space: Space, sampler: str, seed: int, directions: Sequence[Direction], options: Mapping[str, Any]
) -> Proposer:
    """The proposer of a name in `SAMPLERS`.

    Raises:
        PlanError: another name.
    """
    if sampler not in SAMPLERS:
        raise PlanError(f"explore: sampler {sampler!r}; expected one of {', '.join(SAMPLERS)}")
    if sampler in ("grid", "random") or not space.axes:
        return ByNumber(space, sampler, seed)
    return BySampler(space, sampler, seed, directions, options)


def _sampler(name: str, seed: int, options: Mapping[str, Any]) -> BaseSampler:
    import optuna

    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, **options)

    class InOrder(optuna.samplers.NSGAIISampler):
        """Parents in the order of their trials: Optuna's order is another one when they are first chosen."""

        def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
            return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)

    return InOrder(seed=seed, **options)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without the lines that Optuna writes to standard error."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def distributions(axes: Sequence[Axis]) -> dict[str, BaseDistribution]:
    """The axes in Optuna's terms: whole numbers without a gap are a range, all else is a list; no value twice."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for axis in axes:
        numbers = sorted(v for v in axis.choices if isinstance(v, int) and not isinstance(v, bool))
        if len(numbers) == len(axis.choices) and numbers[-1] - numbers[0] == len(numbers) - 1:
            found[axis.name] = IntDistribution(numbers[0], numbers[-1])
        else:
            found[axis.name] = CategoricalDistribution(tuple(axis.choices))
    return found


def derived_seed(seed: int, *position: int) -> int:
    """A seed of its own for every position, 32 bits.

    >>> derived_seed(0, 1), derived_seed(0, 2)
    (2239478147, 2803795111)
    """
    digest = hashlib.sha256(",".join(map(str, (seed, *position))).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def permuted(index: int, size: int, seed: int) -> int:
    """Where a random permutation of ``range(size)`` takes `index`, without the permutation in memory.

    A Feistel network of four rounds on the next even number of bits, walked until it lands below `size`.

    >>> sorted(permuted(k, 1000, 7) for k in range(1000)) == list(range(1000))
    True
    >>> [permuted(k, 10, 7) for k in range(4)]
    [8, 1, 2, 3]
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(4):
            digest = hashlib.sha256(f"{seed},{size},{turn},{right}".encode()).digest()
            left, right = right, left ^ (int.from_bytes(digest[:8], "little") & mask)
        index = left << half | right
        if index < size:
            return index

"""Choosing among what was measured: who keeps the target, the front, the knee, the best by reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from spikequant.explore.pareto import MOST_OBJECTIVES, Points, front, hypervolume, knee
from spikequant.explore.records import Measured
from spikequant.explore.reward import Reward
from spikequant.law.errors import DataError

Direction = Literal["maximize", "minimize"]
DIRECTIONS: Mapping[str, Direction] = {
    "accuracy": "maximize",
    "flash_bytes": "minimize",
    "ram_bytes": "minimize",
    "energy_pj": "minimize",
    "emd": "minimize",
    "dead": "minimize",
}
"""Figures of a `Measured` that a study can ask for, and where they are good."""
ROUNDING = 1e-9
"""Far below the share of one sample."""
OBJECTIVES = ("accuracy", "flash_bytes", "ram_bytes", "energy_pj", "emd")


@dataclass(frozen=True)
class Objective:
    """One figure of `Measured` and the way it should go; by default the good one.

    >>> Objective("accuracy"), Objective("dead", "maximize").direction
    (Objective(name='accuracy', direction='maximize'), 'maximize')

    Raises:
        DataError: no such figure or direction.
    """

    name: str
    direction: Direction | None = None

    def __post_init__(self) -> None:
        if self.name not in DIRECTIONS:
            raise DataError(f"objective {self.name!r}; expected one of {', '.join(DIRECTIONS)}")
        if self.direction is None:
            object.__setattr__(self, "direction", DIRECTIONS[self.name])
        if self.direction not in get_args(Direction):
            raise DataError(f"objective {self.name}: direction {self.direction!r}; expected maximize or minimize")

    def cost(self, measured: Measured) -> float:
        """The figure with the sign with which less is better."""
        value = float(getattr(measured, self.name))
        return -value if self.direction == "maximize" else value


def objectives(names: Sequence[str | Objective]) -> tuple[Objective, ...]:
    """Objectives of names; ``-name`` or ``+name`` asks for the direction down or up.

    >>> [(o.name, o.direction) for o in objectives(["accuracy", "+emd"])]
    [('accuracy', 'maximize'), ('emd', 'maximize')]

    Raises:
        DataError: an unknown name, one twice, none, or more than five.
    """
    signs: dict[str, Direction] = {"-": "minimize", "+": "maximize"}
    found = []
    for one in names:
        if isinstance(one, Objective):
            found.append(one)
        else:
            found.append(Objective(one[1:], signs[one[0]]) if one[:1] in signs else Objective(one))
    if not 1 <= len({o.name for o in found}) == len(found) <= MOST_OBJECTIVES:
        raise DataError(f"objectives {[o.name for o in found]}; expected 1 to {MOST_OBJECTIVES}, each once")
    return tuple(found)


def costs(measured: Sequence[Measured], wanted: Sequence[Objective]) -> Points:
    """``[N, K]``, all to be small."""
    return np.array([[o.cost(m) for o in wanted] for m in measured], dtype=np.float64).reshape(-1, len(wanted))


def keeps(measured: Measured, target_accuracy: float | None) -> bool:
    """Whether it saw all samples and has the accuracy; without a target every finished one does.

    A target that is computed, such as 0.52 - 0.05, lies a rounding above the share of samples that is meant.
    """
    return not measured.stopped_early and (target_accuracy is None or measured.accuracy >= target_accuracy - ROUNDING)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What `select` found; all numbers are indices into what it was given.

    Attributes:
        kept: candidates that keep the target accuracy.
        front: the Pareto front among them.
        knee: the point of the front where it bends; None where nothing was kept.
        best: the highest reward among the kept; None without a reward or where nothing was kept.
        rewards: reward of every kept candidate, in the order of `kept`.
        hypervolume: volume that the front dominates below `reference`.
        reference: in the units of the objectives.
    """

    objectives: tuple[Objective, ...]
    kept: tuple[int, ...]
    front: tuple[int, ...]
    knee: int | None
    best: int | None
    rewards: tuple[float, ...]
    hypervolume: float
    reference: tuple[float, ...]


def select(
    measured: Sequence[Measured],
    wanted: Sequence[str | Objective] = OBJECTIVES,
    *,
    target_accuracy: float | None = None,
    reward: Reward | None = None,
    reference: Mapping[str, float] | None = None,
) -> Selection:
    """Candidates that keep the target, their front with knee and hypervolume, and the best by reward.

    Args:
        measured: results; those with a figure that is not finite are not kept.
        wanted: the objectives of the front.
        target_accuracy: share of samples, or None.
        reward: ranks the kept ones.
        reference: by objective, the point that bounds the hypervolume; what it leaves out is the worst of the kept.

    Raises:
        DataError: unknown objectives, a reference for none of them.
    """
    aims = objectives(wanted)
    unknown = sorted(set(reference or {}) - {o.name for o in aims})
    if unknown:
        raise DataError(f"select: reference names {unknown}, the objectives are {[o.name for o in aims]}")
    good = [i for i, m in enumerate(measured) if keeps(m, target_accuracy)]
    kept = [i for i in good if all(math.isfinite(o.cost(measured[i])) for o in aims)]
    points = costs([measured[i] for i in kept], aims)
    signs = [-1.0 if o.direction == "maximize" else 1.0 for o in aims]
    worst = points.max(axis=0) if kept else np.zeros(len(aims))
    given = reference or {}
    corner = [sign * given[o.name] if o.name in given else w for o, sign, w in zip(aims, signs, worst, strict=True)]
    rewards = [reward(m.accuracy, m.flash_bytes + m.ram_bytes) for m in (measured[i] for i in kept)] if reward else []
    return Selection(
        objectives=aims,
        kept=tuple(kept),
        front=tuple(kept[i] for i in front(points)),
        knee=kept[knee(points)] if kept else None,
        best=kept[int(np.argmax(rewards))] if rewards else None,
        rewards=tuple(rewards),
        hypervolume=hypervolume(points, corner),
        reference=tuple(float(sign * c) for sign, c in zip(signs, corner, strict=True)),
    )

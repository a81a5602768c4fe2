"""What `explore` returns: every trial, the front, the tolerance table, the chosen candidate and its network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from spikequant.explore.build import Materials, built
from spikequant.explore.factors import label
from spikequant.explore.records import Measured
from spikequant.explore.reward import Reward
from spikequant.explore.selection import Selection
from spikequant.explore.space import Space
from spikequant.explore.study import Trial
from spikequant.explore.tolerance import Tolerance
from spikequant.law.errors import PlanError
from spikequant.plan import Plan
from spikequant.quantize import QuantizeReport
from spikequant.training import Batch


@dataclass(frozen=True, kw_only=True)
class Study:
    """A finished or interrupted exploration.

    Attributes:
        space: what could be tried.
        trials: what was measured, in the order of their numbers; those of single roles first.
        reference: figures of the real network on the same data.
        target_accuracy: share of samples that a candidate must classify right.
        selection: who keeps it, the front, the knee, the best by reward; its numbers are indices into `trials`.
        reward: what ranks them.
        tolerance: what each role tolerates alone; None if it was not asked for.
        materials: what networks are built from.
        interrupted: Ctrl-C ended it.
        seconds: wall time of this call.
    """

    space: Space
    trials: tuple[Trial, ...]
    reference: Measured
    target_accuracy: float
    selection: Selection
    reward: Reward
    tolerance: Tolerance | None = None
    materials: Materials = field(repr=False)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def front(self) -> tuple[Trial, ...]:
        """Candidates that keep the target and that none other beats in every objective."""
        return tuple(self.trials[k] for k in self.selection.front)

    @property
    def chosen(self) -> Trial | None:
        """The candidate of highest reward among those that keep the target; None if none does."""
        return None if self.selection.best is None else self.trials[self.selection.best]

    @property
    def plan(self) -> Plan:
        """The plan of the chosen candidate.

        Raises:
            PlanError: no candidate keeps the target.
        """
        return self._chosen().candidate.plan()

    def apply(
        self, trial: Trial | None = None, *, batches: Iterable[Batch] | None = None
    ) -> tuple[nn.Module, QuantizeReport]:
        """The frozen network of a trial (None: the chosen one), built as it was measured, and what was quantized.

        Args:
            trial: one of `trials`.
            batches: to calibrate and train on instead of those of the study.

        Raises:
            PlanError: no candidate keeps the target, or the trial quantizes nothing.
            Refused: there is no such network.
        """
        one = trial if trial is not None else self._chosen()
        materials = self.materials if batches is None else dataclasses.replace(self.materials, learn=batches)
        model, report = built(materials, one.candidate)
        if report is None:
            raise PlanError(f"trial {one.name} ({label(one.candidate.settings)}) quantizes nothing")
        return model, report

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: everything but the networks."""
        chosen = self.chosen
        return {
            "candidates": self.space.size,
            "reference": self.reference.to_dict(),
            "target_accuracy": self.target_accuracy,
            "objectives": [[aim.name, aim.direction] for aim in self.selection.objectives],
            "trials": [trial.to_dict() for trial in self.trials],
            "front": [[self.trials[k].stage, self.trials[k].number] for k in self.selection.front],
            "knee": None if self.selection.knee is None else self.trials[self.selection.knee].candidate.key,
            "hypervolume": self.selection.hypervolume,
            "tolerance": None if self.tolerance is None else self.tolerance.to_dict(),
            "chosen": None if chosen is None else {**chosen.to_dict(), "reward": self.reward_of(chosen)},
            "plan": None if chosen is None else chosen.candidate.plan().to_dict(),
            "interrupted": self.interrupted,
            "seconds": self.seconds,
        }

    def reward_of(self, trial: Trial) -> float:
        """The reward of a trial."""
        return self.reward(trial.measured.accuracy, trial.measured.flash_bytes + trial.measured.ram_bytes)

    def __str__(self) -> str:
        """The front as a table, then what was found in sentences."""
        return "\n".join([*self._table(), "", *self.words()])

    def words(self) -> list[str]:
        """What was found, in sentences."""
        refused = sum(trial.was_refused for trial in self.trials)
        early = sum(trial.measured.stopped_early for trial in self.trials)
        notes = [
            *([f"{refused} cannot be built"] if refused else []),
            *([f"{early} stopped early"] if early else []),
        ]
        alone = sum(trial.stage == "alone" for trial in self.trials)
        notes = [*([f"{alone} of them single roles, all others real"] if alone else []), *notes]
        said = f" ({', '.join(notes)})" if notes else ""
        found = [f"{len(self.trials):,} candidates measured{said}; the space has {self.space.size:,}."]
        if self.interrupted:
            found.append("The exploration was interrupted; this is what it has.")
        real, chosen = self.reference, self.chosen
        if chosen is None:
            found.append(
                f"None keeps {100 * self.target_accuracy:.2f} % accuracy (the real network has "
                f"{100 * real.accuracy:.2f} %): lower the target, widen the space, or allow training (qat)."
            )
            return found
        m = chosen.measured
        times = (real.flash_bytes + real.ram_bytes) / (m.flash_bytes + m.ram_bytes)
        found.append(
            f"Highest reward ({self.reward.form}): {100 * m.accuracy:.2f} % instead of {100 * real.accuracy:.2f} %, "
            f"{times:.1f} times smaller, by {chosen.candidate.to_json()}"
        )
        found.append(
            "All candidates were judged on the same samples, so the figures of the chosen one are optimistic: measure "
            "it once more on other data."
        )
        return found

    def _chosen(self) -> Trial:
        if self.chosen is None:
            raise PlanError(f"explore: no candidate keeps the target accuracy of {self.target_accuracy:.4f}")
        return self.chosen

    def _table(self) -> list[str]:
        header = ("", "trial", "accuracy", "flash B", "RAM B", "energy nJ", "EMD", "settings")
        lines = [header, *(self._cells(k) for k in self.selection.front)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(header) - 1)]
        return ["  ".join([*(c.rjust(w) for c, w in zip(line, widths, strict=False)), line[-1]]) for line in lines]

    def _cells(self, index: int) -> tuple[str, ...]:
        trial = self.trials[index]
        m = trial.measured
        mark = ">" if index == self.selection.best else "k" if index == self.selection.knee else ""
        return (mark, trial.name, f"{100 * m.accuracy:.2f} %", f"{m.flash_bytes:,.0f}", f"{m.ram_bytes:,.0f}",
                f"{m.energy_pj / 1000:,.1f}", f"{m.emd:.4f}", trial.candidate.to_json())  # fmt: skip

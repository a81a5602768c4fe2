"""What `quantize` may do after training besides calibrating: solve the weights, match the firing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli.options import PLAN
from spikequant.cli.plan_options import one_of
from spikequant.law.errors import PlanError

if TYPE_CHECKING:
    from torch import nn

SOLVERS = ("nearest", "second_order")

WeightSolverOption = Annotated[
    str | None,
    typer.Option(
        "--weight-solver",
        metavar="NAME",
        help="How calibration chooses weight codes: nearest (level), or second_order (one-shot: the codes that disturb "
        "the membranes least).",
        autocompletion=one_of(SOLVERS),
        show_default="nearest",
        rich_help_panel=PLAN,
    ),
]
MatchFiringOption = Annotated[
    bool,
    typer.Option(
        "--match-firing",
        help="Move thresholds and biases until each layer fires as often as in the float network.",
        rich_help_panel=PLAN,
    ),
]


@dataclass(frozen=True, kw_only=True)
class AfterTraining:
    """The choices, as they were given; a solver of None is that of `calibrate`."""

    weight_solver: str | None = None
    match_firing: bool = False

    @staticmethod
    def asked(weight_solver: str | None, match_firing: bool, *, has_plan: bool, epochs: int | None) -> AfterTraining:
        """The choices, if they would do something.

        Raises:
            PlanError: an unknown solver, no plan, or firing matched and then trained away.
        """
        if weight_solver is not None and weight_solver not in SOLVERS:
            raise PlanError(f"--weight-solver {weight_solver!r}: expected one of {', '.join(SOLVERS)}")
        if not has_plan and (weight_solver is not None or match_firing):
            word = "--match-firing" if match_firing else "--weight-solver"
            raise PlanError(f"{word} needs a plan: give --plan, --target or bits such as --weight-bits 4")
        if match_firing and epochs:
            raise PlanError(
                "--match-firing is for networks quantized after training; --epochs would move their firing again"
            )
        return AfterTraining(weight_solver=weight_solver, match_firing=match_firing)

    def calibrated(
        self,
        model: nn.Module,
        real: nn.Module,
        batches: Any,
        most: int,
        shown: Callable[[str], AbstractContextManager[Any]],
    ) -> list[str]:
        """Calibrate, match; what there is to say of it."""
        from spikequant.quantize import calibrate, match_firing

        words = []
        with shown("calibrate"):
            report = calibrate(model, batches, max_batches=most, weight_solver=self.weight_solver or "nearest")
        words += [str(layer) for layer in report.solved]
        if self.match_firing:
            with shown("match firing"):
                words += [str(layer) for layer in match_firing(model, real, batches, max_batches=most).layers]
        return words

    def record(self) -> dict[str, Any]:
        """For the run folder."""
        return {"weight_solver": self.weight_solver or "nearest", "match_firing": self.match_firing}

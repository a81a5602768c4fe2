"""``--recipe``: how a network is trained beyond rate and epochs: terms, routines and the schedule of `fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli.options import TRAINING
from spikequant.law.errors import PlanError

if TYPE_CHECKING:
    from torch import nn

MEANINGS = {
    "schedule": "cosine, constant or restarts (cosines of 1, 2, 4, ... epochs)",
    "temporal": "weight of the temporal loss: every step must answer right",
    "distill": "weight of the float network's answers as targets",
    "distill-rates": "weight of its firing rates as targets",
    "pull": "weight of the pull to the levels that hardware can hold",
    "average": "decay of averaged weights, such as 0.999",
    "start-bits": "bits of the first epoch; they fall to those of the plan",
    "freeze-scales": "share of the epochs after which scales stand still",
    "amp": "bfloat16 or float16: real layers under autocast",
}
QUANTIZED_ONLY = ("distill", "distill-rates", "pull", "start-bits", "freeze-scales")
RecipeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        metavar="KEY=VALUE",
        help="How it is trained, several times if need be: "
        + "; ".join(f"{key}: {meaning}" for key, meaning in MEANINGS.items())
        + ".",
        show_default="a cosine",
        rich_help_panel=TRAINING,
    ),
]


@dataclass(frozen=True)
class Recipe:
    """Settings as they were given, by key."""

    settings: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(words: Sequence[str] | None, *, quantized: bool) -> Recipe:
        """Read ``key=value`` words; values that are no numbers are found here, before anything is loaded.

        >>> Recipe.of(["average=0.99", "schedule=restarts"], quantized=False).settings
        (('average', '0.99'), ('schedule', 'restarts'))

        Raises:
            PlanError: an unknown key, one twice, a value that is none, or one that only quantized training has.
        """
        found: dict[str, str] = {}
        for word in words or ():
            key, equals, value = (part.strip() for part in word.partition("="))
            if key not in MEANINGS or not equals or not value:
                raise PlanError(f"--recipe {word}: expected KEY=VALUE with one of {', '.join(MEANINGS)}")
            if key in found:
                raise PlanError(f"--recipe {key} is given twice: {found[key]} and {value}")
            if key in QUANTIZED_ONLY and not quantized:
                raise PlanError(f"--recipe {key} is for quantized networks: use it with spikequant quantize --epochs")
            if key not in ("schedule", "amp"):
                _number(key, value)
            found[key] = value
        return Recipe(tuple(found.items()))

    def __bool__(self) -> bool:
        return bool(self.settings)

    def fit_options(self, teacher: nn.Module | None) -> dict[str, Any]:
        """Arguments for `fit`; `teacher` is the float network.

        Raises:
            DataError: a number that its term or routine refuses.
        """
        from spikequant import training

        given = dict(self.settings)
        taught = (
            training.Teacher(teacher) if teacher is not None and {"distill", "distill-rates"} & set(given) else None
        )
        makers: dict[str, Callable[[float], Any]] = {
            "temporal": lambda value: training.TemporalLoss(weight=value),
            "distill": lambda value: training.Distillation(_there(taught), weight=value),
            "distill-rates": lambda value: training.RateDistillation(_there(taught), weight=value),
            "pull": training.LevelPull,
            "start-bits": lambda value: training.GradualBits(int(value)),
            "freeze-scales": training.FrozenScales,
            "average": training.WeightAverage,
        }
        made = [make(_number(key, given[key])) for key, make in makers.items() if key in given]
        options: dict[str, Any] = {
            "terms": [one for one in made if isinstance(one, training.LossTerm)],
            "routines": [one for one in made if isinstance(one, training.Routine)],
        }
        return {**options, **{key: given[key] for key in ("schedule", "amp") if key in given}}


def recipe_options(recipe: Recipe) -> dict[str, Any]:
    """What a run writes down of a recipe: nothing where none was given, so that older runs resume."""
    return {"recipe": dict(recipe.settings)} if recipe else {}


def _there(teacher: Any) -> Any:
    assert teacher is not None
    return teacher


def _number(key: str, value: str) -> float:
    try:
        return int(value) if key == "start-bits" else float(value)
    except ValueError as error:
        kind = "a whole number" if key == "start-bits" else "a number"
        raise PlanError(f"--recipe {key}={value}: expected {kind} ({MEANINGS[key]})") from error

"""The plan at the shell: a file, or the fields of `Plan.uniform` as options of the same names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli.options import PLAN
from spikequant.cli.targets import complete_target
from spikequant.law.errors import PlanError
from spikequant.law.rounding import ROUNDINGS

if TYPE_CHECKING:
    from spikequant.plan import Plan

QUANTIZERS = (
    *("uniform", "lsq", "lqnet", "fixed_point", "power_of_two", "ternary", "binary"),
    *("sigmoid_sum", "shared_scale", "rescaw", "sign_power_of_two", "threshold_centred"),
)
LEVELS = ("uniform", "learned", "threshold_centred")
CLIPPINGS = ("max", "percentile", "mse", "kl")
NEEDS = {
    "weight_clipping": "weight_bits",
    "membrane_signed": "membrane_bits",
    "membrane_rounding": "membrane_bits",
    "membrane_levels": "membrane_bits",
}


def one_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Tab completion of an option that takes one of some words."""
    known = tuple(words)
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]


def _bits(role: str, most: int) -> Any:
    return typer.Option(metavar="BITS", min=1, max=most, help=f"Bits of {role}, 1 to {most}.", rich_help_panel=PLAN)


def _word(text: str, words: tuple[str, ...]) -> Any:
    return typer.Option(
        metavar="NAME", help=f"{text}: {', '.join(words)}.", autocompletion=one_of(words), rich_help_panel=PLAN
    )


PlanOption = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        help="Plan from a .toml or .json file: bits for every layer and role. Excludes the options below.",
        rich_help_panel=PLAN,
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="Hardware profile that chooses neurons and widths, or refuses: see spikequant targets.",
        autocompletion=complete_target,
        rich_help_panel=PLAN,
    ),
]
WeightBits = Annotated[int | None, _bits("the weights", 16)]
MembraneBits = Annotated[int | None, _bits("the membranes as stored between steps", 32)]
WeightQuantizer = Annotated[str | None, _word("How weights become codes", QUANTIZERS)]
WeightClipping = Annotated[str | None, _word("How the range of the weights is found", CLIPPINGS)]
MembraneSigned = Annotated[
    bool | None,
    typer.Option(
        "--membrane-signed/--membrane-unsigned", help="Whether membranes can be negative.", rich_help_panel=PLAN
    ),
]
MembraneRounding = Annotated[str | None, _word("How membranes are rounded", ("auto", *ROUNDINGS))]
MembraneLevels = Annotated[str | None, _word("Where the levels of membranes of up to 4 bits lie", LEVELS)]
InputBits = Annotated[int | None, _bits("the input", 16)]
LeakBits = Annotated[int | None, _bits("the leaks", 24)]
ThresholdBits = Annotated[int | None, _bits("the thresholds", 32)]
BiasBits = Annotated[int | None, _bits("the biases", 32)]
CurrentBits = Annotated[int | None, _bits("the synaptic currents", 32)]


@dataclass(frozen=True, kw_only=True)
class PlanFields:
    """The fields that were given as options; None where not."""

    weight_bits: int | None = None
    membrane_bits: int | None = None
    weight_quantizer: str | None = None
    weight_clipping: str | None = None
    membrane_signed: bool | None = None
    membrane_rounding: str | None = None
    membrane_levels: str | None = None
    input_bits: int | None = None
    leak_bits: int | None = None
    threshold_bits: int | None = None
    bias_bits: int | None = None
    current_bits: int | None = None

    @staticmethod
    def of(parameters: Mapping[str, Any]) -> PlanFields:
        """Out of all options of a command."""
        return PlanFields(**{field.name: parameters[field.name] for field in dataclasses.fields(PlanFields)})

    def given(self) -> dict[str, Any]:
        """Field and value of those that were given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def chosen_plan(file: Path | None, fields: PlanFields, *, seed: int, target: str | None = None) -> Plan | None:
    """The plan that was asked for; None if none was.  `seed` replays stochastic rounding; a `target` is a plan, too.

    Raises:
        PlanError: a file and fields together, a field without the one that it belongs to, a
            plan that asks for nothing, or a mistake in it.
    """
    from spikequant.plan import Plan
    from spikequant.targets import target as named

    given = fields.given()
    tag = None if target is None else named(target).tag
    if file is not None and given:
        raise PlanError(f"--plan {file} and {options_text(given)} exclude each other; write the bits into the file")
    for name, owner in NEEDS.items():
        if name in given and owner not in given:
            raise PlanError(f"--{name.replace('_', '-')} without --{owner.replace('_', '-')} would change nothing")
    if file is None and not given and tag is None:
        return None
    plan = Plan.load(file) if file is not None else Plan.uniform(**given).model_copy(update={"seed": seed})
    if tag is not None and plan.target is not None and named(plan.target).tag != tag:
        raise PlanError(f"--plan {file} is for {plan.target}, and --target {target} was given; give one of them")
    if tag is not None:
        plan = plan.model_copy(update={"target": tag})
    if plan.target is None and not any(rule.asked() for rule in plan.rules):
        raise PlanError(f"{file}: this plan asks for nothing; give at least one rule with a role such as weight")
    return plan


def options_text(given: Iterable[str]) -> str:
    """Field names as they are written on the command line."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in given)

"""The space of an exploration: a plan in which a value may be a list of values.

scheme = ["ptq", "qat"]
epochs = 2
steps = [4, 8]

[[rules]]
match = "*"
weight = { bits = [2, 3, 4, 8], quantizer = ["uniform", "power_of_two"], clipping = ["max", "mse"] }
membrane = { bits = [4, 6, 8], rounding = ["floor", "half_even", "stochastic"] }
leak = { form = ["multiply", "shift"], bits = [4, 8] }
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from spikequant.explore.factors import Axis, Factor, role_factor, setting_factor
from spikequant.explore.records import Candidate
from spikequant.law.errors import PlanError, Unsupported
from spikequant.plan import ROLES
from spikequant.targets.registry import target

TRAINED = ("itq", "qat")
USUAL: Mapping[str, Any] = {
    "rules": [
        {
            "match": "*",
            "weight": {"bits": [2, 3, 4, 5, 6, 8], "clipping": ["mse", "max"]},
            "membrane": {"bits": [2, 3, 4, 6, 8, 12], "rounding": ["floor", "half_up", "stochastic"]},
            "leak": {"form": ["multiply", "shift"], "bits": [3, 8]},
        }
    ]
}
"""The space where none is given: every role the same everywhere, quantized after training."""


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = Field(min_length=1)
    weight: Any = None
    bias: Any = None
    input: Any = None
    current: Any = None
    membrane: Any = None
    threshold: Any = None
    leak: Any = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[_Rule, ...] = Field(min_length=1)
    scheme: tuple[Literal["ptq", "itq", "qat"], ...] = ("ptq",)
    epochs: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    sparsity: tuple[float, ...] = ()
    target: tuple[str, ...] = ()
    fraction_bits: tuple[int, ...] = ()

    @field_validator("scheme", "epochs", "steps", "sparsity", "target", "fraction_bits", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else (value,)


@dataclass(frozen=True)
class Space:
    """Everything that may be tried.

    >>> rule = {"match": "*", "weight": {"bits": [2, 4, 8]}, "membrane": {"bits": [4, 8]}}
    >>> space = Space.from_dict({"rules": [rule]})
    >>> space.size, space.at(0).plan().layer("fc").weight.bits, space.at(5).plan().layer("fc").membrane.bits
    (6, 2, 8)

    Attributes:
        factors: what varies, and what is fixed, by role and layer group.
    """

    factors: tuple[Factor, ...]

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Space:
        """A space from plain data.

        Raises:
            PlanError: unknown field, wrong type, value out of range; the message names the field.
        """
        try:
            file = _File.model_validate(record)
        except ValidationError as error:
            raise PlanError(_explained(error)) from error
        factors = _whole(file)
        for number, rule in enumerate(file.rules):
            given = [(role, getattr(rule, role)) for role in ROLES if getattr(rule, role) is not None]
            if not given:
                raise PlanError(f"space: rule {number + 1} ({rule.match!r}) names no role; expected some of {ROLES}")
            for role, value in given:
                factors.append(_role(rule.match, role, value))
        names = [factor.name for factor in factors]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise PlanError(f"space: {twice} is given twice; join the two rules")
        return Space(tuple(factors))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Space:
        """Read a ``.toml`` or ``.json`` file.

        Raises:
            PlanError: it cannot be read, or holds a mistake; the message names file and field.
        """
        source = Path(path)
        try:
            text = source.read_text(encoding="utf-8")
            record = tomllib.loads(text) if source.suffix == ".toml" else json.loads(text)
        except OSError as error:
            raise PlanError(f"cannot read the space {source}: {error}") from error
        except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PlanError(f"{source} is not valid {source.suffix[1:].upper() or 'JSON'}: {error}") from error
        try:
            return Space.from_dict(record)
        except PlanError as error:
            raise PlanError(f"{source}: {error}") from error

    @property
    def size(self) -> int:
        """How many different candidates there are."""
        return math.prod(len(factor.options) for factor in self.factors)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What a sampler chooses; what is fixed is not among them."""
        return tuple(axis for factor in self.factors for axis in factor.axes)

    @property
    def varied(self) -> tuple[Factor, ...]:
        """The factors with more than one option."""
        return tuple(factor for factor in self.factors if len(factor.options) > 1)

    @property
    def trains(self) -> bool:
        """Whether some candidates are trained on."""
        return any(option.get("scheme") in TRAINED for factor in self.factors for option in factor.options)

    def candidate(self, point: Mapping[str, Any]) -> Candidate:
        """The candidate at a choice of every axis."""
        return self.of(factor.chosen(point) for factor in self.factors)

    def at(self, index: int) -> Candidate:
        """The candidate of a number below `size`; the last factor runs fastest."""
        return self.of(f.options[k] for f, k in zip(self.factors, self._digits(index), strict=True))

    def point_at(self, index: int) -> dict[str, Any]:
        """A choice of the axes that gives ``at(index)``."""
        digits = zip(self.factors, self._digits(index), strict=True)
        return {name: value for factor, k in digits for name, value in factor.point(k).items()}

    def candidates(self) -> Iterator[Candidate]:
        """All of them, in the order of `at`."""
        return (self.of(options) for options in itertools.product(*(factor.options for factor in self.factors)))

    def within(self, kept: Mapping[str, Sequence[int]]) -> Space:
        """The space with some options of the factors that `kept` names, by their numbers."""
        return Space(tuple(f.kept(kept[f.name]) if f.name in kept else f for f in self.factors))

    @staticmethod
    def of(options: Any) -> Candidate:
        """The candidate of one option of each factor."""
        return Candidate({name: value for option in options for name, value in option.items()})

    def key(self) -> str:
        """Names this space and no other, for a study that is resumed."""
        text = json.dumps([[factor.name, list(factor.options)] for factor in self.factors], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        lines = [f"{self.size:,} candidates"]
        width = max(len(factor.name) for factor in self.factors)
        lines += [f"  {factor.name.ljust(width)}  {len(factor.options):,} options" for factor in self.factors]
        return "\n".join(lines)

    def _digits(self, index: int) -> list[int]:
        if not 0 <= index < self.size:
            raise PlanError(f"space: no candidate {index:,}; there are {self.size:,}")
        digits = []
        for factor in reversed(self.factors):
            index, digit = divmod(index, len(factor.options))
            digits.append(digit)
        return digits[::-1]


SpaceLike = Space | Mapping[str, Any] | str | os.PathLike[str]
"""A space, its record, or a file that holds one."""


def space_of(given: SpaceLike) -> Space:
    """The space that is meant."""
    if isinstance(given, Space):
        return given
    return Space.from_dict(given) if isinstance(given, Mapping) else Space.load(given)


def _whole(file: _File) -> list[Factor]:
    trained = any(scheme in TRAINED for scheme in file.scheme)
    if trained != bool(file.epochs):
        asked = "scheme" if file.epochs else "epochs"
        raise PlanError(f"space: field {asked!r}: itq and qat need epochs, and epochs need one of them; give both")
    factors = [_setting("scheme", {"scheme": file.scheme, **({"epochs": file.epochs} if trained else {})})]
    for name, least, most in (
        ("steps", 1, 100_000), ("epochs", 1, 10_000), ("fraction_bits", 0, 24), ("sparsity", 0.0, 0.999)
    ):  # fmt: skip
        for value in getattr(file, name):
            if not least <= value <= most:
                raise PlanError(f"space: field {name!r}: got {value}; expected {least} to {most}")
    for name in file.target:
        try:
            target(name)
        except Unsupported as error:
            raise PlanError(f"space: field 'target': {error}") from error
    for name in ("steps", "sparsity", "target", "fraction_bits"):
        if getattr(file, name):
            factors.append(_setting(name, {name: getattr(file, name)}))
    return factors


def _setting(name: str, leaves: Mapping[str, tuple[Any, ...]]) -> Factor:
    for leaf, values in leaves.items():
        if len(set(values)) < len(values):
            raise PlanError(f"space: field {leaf!r}: got {list(values)}; expected different values")
    return setting_factor(name, leaves, {"epochs": TRAINED})


def _role(pattern: str, role: str, value: Any) -> Factor:
    where = f"space: rule {pattern!r}: {role}"
    try:
        return role_factor(pattern, role, value, where)
    except PlanError as error:
        text = str(error)
        raise PlanError(text if text.startswith(where) else f"{where}: {text.removeprefix('plan: ')}") from error


def _explained(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "space"
        if item["type"] == "extra_forbidden":
            owner = _Rule if "rules" in item["loc"] else _File
            lines.append(f"unknown field {field!r}; expected some of {', '.join(owner.model_fields)}")
        else:
            lines.append(f"field {field!r}: {item['msg'].lower()}, got {item['input']!r}")
    return "space: " + "; ".join(lines)

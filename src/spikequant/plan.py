"""The plan: which layer gets which quantizer, bits, rounding and clipping, per role.

A plan is a list of rules.  For every layer the first rule whose pattern matches its name
decides; a rule or a role that applies nowhere raises when the plan is used.  Plans are
written as TOML or JSON::

    [[rules]]
    match = "conv1"
    weight = { quantizer = "uniform", bits = 8, clipping = "mse" }
    membrane = { bits = 8, signed = false }

    [[rules]]
    match = "*"
    weight = { quantizer = "lsq", bits = 4 }
    membrane = { bits = 4, rounding = "stochastic" }
"""

from __future__ import annotations

import inspect
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Never

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spikequant.law.artifact import strict_json
from spikequant.law.atomic import write_text
from spikequant.law.errors import PlanError, nearest
from spikequant.law.rounding import Rounding
from spikequant.quantizers import Quantizer, quantizer_from_dict

MOST_BYTES = 2**20
ROLES = ("weight", "bias", "input", "current", "membrane", "threshold", "leak")
SYNAPSE_ROLES = ("weight", "bias", "input")
NEURON_ROLES = ("current", "membrane", "threshold", "leak")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorRole(_Strict):
    """How a tensor (weight, bias, threshold, leak) becomes codes.

    ``options`` go to the quantizer by name, so that a new quantizer needs no new field.
    """

    quantizer: str = "uniform"
    bits: int | None = Field(default=None, ge=1, le=32)
    per_channel: bool = True
    clipping: str | dict[str, Any] | None = None
    rounding: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    def build(self, where: str) -> Quantizer:
        """The quantizer; an option that it does not know raises `PlanError` with the layer's name."""
        record: dict[str, Any] = {"name": self.quantizer, **self.options}
        for name in ("bits", "clipping", "rounding"):
            if getattr(self, name) is not None:
                record[name] = getattr(self, name)
        try:
            return quantizer_from_dict(record)
        except PlanError as error:
            raise PlanError(f"{where}: {error}") from error


class StateRole(_Strict):
    """How a state (membrane, current) or the network input is stored.

    ``limit``: largest magnitude in real units; None lets `calibrate` find it (before that:
    the threshold).  ``clipping``: how `calibrate` finds it: ``threshold``: by the firing rates, for a membrane from
    the threshold on, for a current from its peak downwards.  ``rounding="auto"``: `calibrate`
    chooses by the error of the firing rates.  ``attach``: ``stored`` narrows once, when
    the state is stored; ``before_fire`` narrows before the comparison as well.  ``unit``: what
    one code is worth: ``limit``: as little as the limit allows; ``weight``: one weight code
    (`SharedScale`), so that the weights set the limit, too.  ``levels``: ``learned`` (membrane,
    up to 4 bits) lets `calibrate` place every level; sign and rounding are then its own;
    ``threshold_centred`` crowds them below the threshold (`ThresholdCentred`, whose fields are ``options``).
    """

    bits: int = Field(ge=1, le=32)
    signed: bool = True
    narrow: bool = False
    rounding: Rounding | Literal["auto"] = "auto"
    overflow: Literal["saturate", "wrap"] = "saturate"
    limit: float | None = Field(default=None, gt=0)
    clipping: Literal["max", "percentile", "threshold"] = "threshold"
    attach: Literal["stored", "before_fire"] = "stored"
    unit: Literal["limit", "weight"] = "limit"
    levels: Literal["uniform", "learned", "threshold_centred"] = "uniform"
    options: dict[str, Any] = Field(default_factory=dict)


class InputRole(_Strict):
    """How a real network input becomes codes: half-even, saturating; ``limit`` None: the largest magnitude seen."""

    bits: int = Field(ge=1, le=16)
    signed: bool = True
    limit: float | None = Field(default=None, gt=0)


class LeakRole(_Strict):
    """How the leak becomes ``k / 2^bits``; ``rounding`` cuts the product before the sum (else it stays exact)."""

    bits: int = Field(default=8, ge=1, le=24)
    rounding: Rounding | None = None
    quantizer: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class LayerPlan(_Strict):
    """What happens to one layer; a role that is None is not asked for."""

    weight: TensorRole | None = None
    bias: TensorRole | None = None
    input: InputRole | None = None
    current: StateRole | None = None
    membrane: StateRole | None = None
    threshold: TensorRole | None = None
    leak: LeakRole | None = None

    def asked(self) -> tuple[str, ...]:
        """The roles that are not None."""
        return tuple(role for role in ROLES if getattr(self, role) is not None)


class Rule(LayerPlan):
    """A `LayerPlan` for every layer whose name matches a shell pattern (``conv*``, ``blocks.?.fc``)."""

    match: str = Field(min_length=1)

    def matches(self, name: str) -> bool:
        """Whether this rule speaks about a layer."""
        return fnmatchcase(name, self.match)


class Plan(_Strict):
    """Ordered rules; the first match wins.  ``target`` names a hardware profile (`spikequant.targets`).

    >>> plan = Plan.uniform(weight_bits=4, membrane_bits=8)
    >>> plan.layer("conv1").weight.bits, plan.layer("conv1").membrane.bits
    (4, 8)
    """

    rules: tuple[Rule, ...] = ()
    fraction_bits: int | None = Field(default=None, ge=0, le=24)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    target: str | None = Field(default=None, pattern=r"^[a-z0-9-]+(/[0-9]+)?$")

    @staticmethod
    def uniform(
        *,
        weight_bits: int | None = None,
        membrane_bits: int | None = None,
        weight_quantizer: str | None = None,
        weight_clipping: str = "mse",
        membrane_signed: bool = True,
        membrane_rounding: Rounding | Literal["auto"] = "auto",
        membrane_levels: Literal["uniform", "learned", "threshold_centred"] = "uniform",
        input_bits: int | None = None,
        leak_bits: int | None = None,
        threshold_bits: int | None = None,
        bias_bits: int | None = None,
        current_bits: int | None = None,
        **unknown: Never,
    ) -> Plan:
        """The same bits everywhere; one bit of weight means `Binary`, `Ternary` goes by name.

        ``weight_quantizer="shared_scale"`` gives membranes the scale of the weights as well.

        `weight_clipping` (of the uniform quantizer): ``max``, ``percentile``, ``mse`` or ``kl``.
        `membrane_levels` (up to 4 bits, see `StateRole`): ``learned`` lets `calibrate` place every level.

        >>> Plan.uniform(membrane_bits=2, membrane_levels="learned").layer("lif1").membrane.levels
        'learned'

        Raises:
            PlanError: a name that is none of these, with the nearest one; a value that no plan has; sign, rounding or
                levels of a membrane without its bits, clipping of weights that are not quantized.
        """
        _refuse(unknown, Plan.uniform, "Plan.uniform")
        if membrane_bits is None and (membrane_signed, membrane_rounding, membrane_levels) != (True, "auto", "uniform"):
            told = f"{membrane_signed=}, {membrane_rounding=}, {membrane_levels=}"
            raise PlanError(f"Plan.uniform: {told} needs membrane_bits; without it no membrane is quantized")
        if weight_bits is None and weight_quantizer is None and weight_clipping != "mse":
            raise PlanError(f"Plan.uniform: {weight_clipping=} needs weight_bits; without it no weight is quantized")
        layer: dict[str, Any] = {}
        if weight_bits is not None or weight_quantizer is not None:
            layer["weight"] = _weight_role(weight_bits, weight_quantizer, weight_clipping)
        if membrane_bits is not None:
            layer["membrane"] = {"bits": membrane_bits, "signed": membrane_signed, "rounding": membrane_rounding}
            layer["membrane"] |= {"unit": "weight"} if weight_quantizer == "shared_scale" else {}
            layer["membrane"] |= {"levels": membrane_levels} if membrane_levels != "uniform" else {}
        if current_bits is not None:
            layer["current"] = {"bits": current_bits}
        if input_bits is not None:
            layer["input"] = {"bits": input_bits}
        if leak_bits is not None:
            layer["leak"] = {"bits": leak_bits}
        for role, bits in (("threshold", threshold_bits), ("bias", bias_bits)):
            if bits is not None:
                layer[role] = {"bits": bits}
        return Plan.from_dict({"rules": [{"match": "*", **layer}]} if layer else {})

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Plan:
        """A plan from plain data; the message of a mistake names the field.

        Raises:
            PlanError: unknown field, wrong type, value out of range.
        """
        try:
            return Plan.model_validate(record)
        except ValidationError as error:
            raise PlanError(_explained(error)) from error

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back."""
        return self.model_dump(mode="json", exclude_none=True)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Read a plan from a ``.toml`` or ``.json`` file.

        Raises:
            PlanError: no file, too large, not valid, a key that is there twice, or a field that `from_dict` refuses.
        """
        source = Path(path)
        kind = source.suffix[1:].upper() or "JSON"
        try:
            if not source.is_file():
                raise PlanError(f"cannot read the plan {source}: there is no such file")
            if source.stat().st_size > MOST_BYTES:
                raise PlanError(f"{source} has more than {MOST_BYTES:,} bytes; expected a plan")
            text = source.read_text(encoding="utf-8")
            record = tomllib.loads(text) if source.suffix == ".toml" else strict_json(text, "the plan")
            plain = json.dumps(record)
        except OSError as error:
            raise PlanError(f"cannot read the plan {source}: {error}") from error
        except PlanError:
            raise
        except (ValueError, TypeError, RecursionError) as error:
            raise PlanError(f"{source} is not valid {kind}: {error}") from error
        try:  # strict: in a file "4" is a text and true is no 1
            return Plan.model_validate_json(plain, strict=True)
        except ValidationError as error:
            raise PlanError(f"{source}: {_explained(error)}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as TOML or JSON, by the file's ending."""
        target = Path(path)
        write_text(target, self.to_toml() if target.suffix == ".toml" else json.dumps(self.to_dict(), indent=2) + "\n")

    def to_toml(self) -> str:
        """The text that `save` writes to a ``.toml`` file.

        >>> print(Plan.uniform(membrane_bits=8).to_toml().splitlines()[3])
        match = "*"
        """
        return _toml(self.to_dict())

    def layer(self, name: str) -> LayerPlan:
        """What the plan says of the layer `name`; nothing where no rule matches."""
        return next((rule for rule in self.rules if rule.matches(name)), LayerPlan())


def literally(path: str) -> str:
    """A pattern for `Rule.match` that matches this path only.

    >>> literally("blocks[0].fc")
    'blocks[[]0].fc'
    """
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def _weight_role(bits: int | None, quantizer: str | None, clipping: str) -> dict[str, Any]:
    name = quantizer if quantizer is not None else "binary" if bits == 1 else "uniform"
    role: dict[str, Any] = {"quantizer": name}
    if name not in ("binary", "ternary", "sign_power_of_two") and bits is not None:
        role["bits"] = bits
    if name == "uniform":
        role["clipping"] = clipping
    return role


def _refuse(unknown: Mapping[str, object], asked: Callable[..., object], called: str) -> None:
    """Raise about the first name that a function does not have."""
    known = [p.name for p in inspect.signature(asked).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in unknown:
        raise PlanError(f"{called}: no option {name!r}; expected some of {', '.join(known)}{nearest(name, known)}")


def _explained(error: ValidationError) -> str:
    """One line per mistake: the field's path, what was wrong, what was given."""
    lines: dict[str, str] = {}
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"] if not _is_alternative(part)) or "plan"
        if item["type"] == "extra_forbidden":
            lines[field] = f"plan: unknown field {field!r}; {_allowed(item['loc'])}"
        elif field in lines:
            before, given = lines[field].rsplit(", got ", 1)
            lines[field] = f"{before}, or {item['msg'].lower()}, got {given}"
        else:
            lines[field] = f"plan: field {field!r}: {item['msg'].lower()}, got {item['input']!r}"
    return "; ".join(lines.values())


def _is_alternative(part: int | str) -> bool:
    """Whether a part of a location names no field, but one of the types that the field may have."""
    return isinstance(part, str) and (part == "str" or "[" in part)


def _allowed(location: tuple[int | str, ...]) -> str:
    owners: dict[str, type[BaseModel]] = {
        "weight": TensorRole, "bias": TensorRole, "threshold": TensorRole, "leak": LeakRole,
        "input": InputRole, "current": StateRole, "membrane": StateRole,
    }  # fmt: skip
    names = [part for part in location[:-1] if isinstance(part, str)]
    owner: type[BaseModel] = Plan if not names else owners.get(names[-1], Rule)
    return f"expected some of {', '.join(owner.model_fields)}"


def _toml(record: dict[str, Any]) -> str:
    """The few forms of TOML that a plan needs."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in record.items() if key != "rules"]
    for rule in record.get("rules", []):
        rule = {"match": rule["match"], **rule}  # first, as one reads it
        lines += ["", "[[rules]]", *(f"{key} = {_toml_value(value)}" for key, value in rule.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)

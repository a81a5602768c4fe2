"""One point of a space, what it scored, and who scores it: the records that all of `explore` speaks in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

from spikequant.law.errors import PlanError
from spikequant.plan import ROLES, SYNAPSE_ROLES, Plan

SCHEMES = ("ptq", "itq", "qat")
SETTINGS = ("scheme", "epochs", "steps", "sparsity", "target", "fraction_bits", "seed")
"""Settings of a whole candidate; all others are ``pattern:role.field``, the layers that they speak of in front."""
EXTRA_FIELDS: Mapping[str, tuple[str, ...]] = {"weight": ("sparsity",), "leak": ("form",)}
"""Fields of a role that change the network before it is quantized, so no plan has them."""


@dataclass(frozen=True)
class Candidate:
    """One point of a space: settings as plain JSON values, sorted by name.

    A setting of layers is named ``pattern:role.field`` with the fields of a `Plan`; the others are `SETTINGS`:
    ``scheme`` (``ptq``: calibrate after training; ``qat``: `fit` for ``epochs``; ``itq``: the same, but nothing is
    calibrated before), ``steps`` (time steps), ``sparsity`` (share of weights that is 0), ``target`` (a hardware
    profile), and the plan's own ``fraction_bits``, ``seed`` and ``target``.

    >>> one = Candidate({"scheme": "ptq", "*:weight.bits": 4, "*:membrane.bits": 8})
    >>> list(one.settings), one.plan() == Candidate.from_json(one.to_json()).plan()
    (['*:membrane.bits', '*:weight.bits', 'scheme'], True)
    >>> one.key
    '861dcd5ca857'

    Raises:
        PlanError: a setting that has no such form, or a value that is not JSON.
    """

    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in self.settings:
            if name not in SETTINGS:
                split_setting(name)
        try:
            text = json.dumps(dict(self.settings), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PlanError(f"candidate: its settings are not plain JSON values: {error}") from error
        object.__setattr__(self, "settings", json.loads(text))
        if self.scheme not in SCHEMES:
            raise PlanError(f"candidate: scheme {self.scheme!r}; expected one of {', '.join(SCHEMES)}")

    def __hash__(self) -> int:
        return hash(self.to_json())

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that name these settings and no others, the same on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    def scheme(self) -> str:
        """How it is quantized; ``ptq`` where nothing is said."""
        return str(self.settings.get("scheme", "ptq"))

    def plan(self) -> Plan:
        """The plan of its layers.

        The more specific pattern stands first and inherits from wider ones that match it: roles of synapses if it
        speaks of a synapse, roles of neurons if it speaks of a neuron.
        """
        by_pattern: dict[str, dict[str, Any]] = {}
        for name, value in self.settings.items():
            if name not in SETTINGS and value is not None:
                pattern, role, field = split_setting(name)
                if field in EXTRA_FIELDS.get(role, ()):
                    continue
                by_pattern.setdefault(pattern, {}).setdefault(role, {})[field] = value
        order = sorted(by_pattern, key=lambda p: (_is_wild(p), -len(p), p))
        rules = []
        for pattern in order:
            wider = [p for p in reversed(order) if p == pattern or (_is_wild(p) and fnmatchcase(pattern, p))]
            roles: dict[str, dict[str, Any]] = {}
            kinds = {role in SYNAPSE_ROLES for role in by_pattern[pattern]}
            for source in wider:
                for role, fields in by_pattern[source].items():
                    if (role in SYNAPSE_ROLES) in kinds:
                        roles[role] = {**roles.get(role, {}), **fields}
            rules.append({"match": pattern, **roles})
        whole = {name: self.settings[name] for name in ("fraction_bits", "seed", "target") if name in self.settings}
        return Plan.from_dict({"rules": rules, **whole})

    def of_layer(self, layer: str, role: str, field: str) -> Any:
        """A field of `EXTRA_FIELDS` for one layer, as the most specific pattern says it; None where none does."""
        found = {}
        for name, value in self.settings.items():
            if name not in SETTINGS and name.endswith(f":{role}.{field}"):
                found[split_setting(name)[0]] = value
        patterns = sorted(found, key=lambda p: (_is_wild(p), -len(p), p))
        return next((found[p] for p in patterns if fnmatchcase(layer, p)), None)

    def to_json(self) -> str:
        """The settings as one line of JSON, sorted."""
        return json.dumps(dict(self.settings), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Candidate:
        """The candidate that `to_json` wrote."""
        return Candidate(json.loads(text))


def split_setting(name: str) -> tuple[str, str, str]:
    """``(pattern, role, field)`` of the name of a setting.

    >>> split_setting("blocks.*:weight.bits")
    ('blocks.*', 'weight', 'bits')

    Raises:
        PlanError: not of this form.
    """
    pattern, colon, rest = name.rpartition(":")
    role, dot, field = rest.partition(".")
    if not (pattern and colon and dot and field) or role not in ROLES:
        raise PlanError(
            f"candidate: setting {name!r}; expected one of {', '.join(SETTINGS)}, or pattern:role.field with a role "
            f"of {', '.join(ROLES)}, as in 'conv*:weight.bits'"
        )
    return pattern, role, field


def _is_wild(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a candidate scored, over the samples that it saw.

    Attributes:
        accuracy: share of `samples` that it classified right.
        samples: how many it saw; fewer than there are only where `stopped_early`.
        flash_bytes, ram_bytes: memory in true bits (`measure.footprint`), divided by 8.
        energy_pj: per sample, integer operations and memory traffic (`measure.energy_pj`), in pJ.
        emd: mean over layers of the Wasserstein-1 distance of firing rates to the real network, in spikes per step.
        dead: share of neurons that fire in under 5 % of the steps, all layers together.
        stopped_early: it cannot keep the target accuracy (`explore.sequential`), so the rest was not run.
        seconds: time that it took, its share of what it had in common with others included.
        scheme: ``ptq``, ``itq`` or ``qat``.
        refused: why there is no such network, then accuracy and the other figures are NaN; empty where there is one.
    """

    accuracy: float
    samples: int
    flash_bytes: float
    ram_bytes: float
    energy_pj: float
    emd: float
    dead: float
    stopped_early: bool
    seconds: float
    scheme: str
    refused: str = ""

    def same_as(self, other: Measured) -> bool:
        """Whether all but the time is equal, bit for bit."""
        return dataclasses.replace(self, seconds=0.0) == dataclasses.replace(other, seconds=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; a number that is not finite becomes None."""
        record = dataclasses.asdict(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Measured:
        """The record that `to_dict` gave; None becomes NaN."""
        fields: dict[str, Any] = {k: math.nan if v is None else v for k, v in record.items()}
        return Measured(**fields)


class Evaluator(Protocol):
    """Who scores candidates."""

    def measure(self, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        """One result per candidate, in their order.

        Deterministic in (study seed, candidate): neither grouping nor order of the candidates changes a figure.
        """
        ...

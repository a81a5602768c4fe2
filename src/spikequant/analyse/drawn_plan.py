"""The plan of bits that were chosen: one rule a layer, the rest from a template or a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spikequant.analyse.held_widths import HeldWidths
from spikequant.analyse.layer_facts import Facts, weight_role
from spikequant.plan import NEURON_ROLES, SYNAPSE_ROLES, Plan, TensorRole, literally


@dataclass(frozen=True)
class DrawnPlan:
    """How a plan is drawn up.

    Attributes:
        facts: layers and roles of the network.
        membrane_bits: of membranes without a choice.
        template: where the rest of each rule comes from.
        on: what a target holds, or None.
    """

    facts: Facts
    membrane_bits: int
    template: Plan | None
    on: HeldWidths | None

    def plan(self, bits: Mapping[tuple[str, str], int]) -> Plan:
        """One rule a layer."""
        fixed = self.on is not None and self.on.state_is_fixed
        base = self.template
        if base is None:
            base = Plan.uniform(weight_bits=8, membrane_bits=None if fixed else self.membrane_bits)
        by_layer: dict[str, dict[str, Any]] = {}
        for row in self.facts.rows:
            roles = SYNAPSE_ROLES if row.role == "weight" else NEURON_ROLES  # a role that a layer lacks is refused
            given = base.layer(row.layer).model_dump(mode="json", exclude_none=True)
            rule = by_layer.setdefault(row.layer, {})
            rule |= {role: value for role, value in given.items() if role in roles and role not in rule}
            width = bits.get((row.layer, row.role))
            if row.role == "weight":
                role = None if self.template is None else base.layer(row.layer).weight
                rule["weight"] = _weight(width if width is not None else 8, role)
                if self.on is not None and self.on.one_scale and not _says_channels(role):
                    rule["weight"]["per_channel"] = False
            elif not fixed:
                rule["membrane"] = rule.get("membrane", {}) | {"bits": self.membrane_bits if width is None else width}
        rules = [{**rule, "match": literally(layer)} for layer, rule in by_layer.items() if rule]
        target = {} if self.on is None else {"target": self.on.target.tag}
        return Plan.from_dict({**base.model_dump(mode="json", exclude_none=True), **target, "rules": rules})


def _says_channels(role: TensorRole | None) -> bool:
    return role is not None and "per_channel" in role.model_fields_set


def _weight(bits: int, given: TensorRole | None) -> dict[str, Any]:
    role = weight_role(bits) if given is None or bits == 1 else given.model_copy(update={"bits": bits})
    record: dict[str, Any] = role.model_dump(mode="json", exclude_none=True)
    return record

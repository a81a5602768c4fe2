"""What a check found: every violation with layer and limit, and how much of the chip is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spikequant.targets.profile import Target

PROMISES = {
    "equal": "its integers follow the rules of the chip, as far as the profile's sources describe them",
    "limits": "sizes and widths only: equality with the chip is not promised",
}


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One thing that the target cannot do.

    Attributes:
        node: name of the layer, or ``network``.
        limit: what the target says, by the name of the rule or limit.
        text: what was found, what is allowed, what to do.
    """

    node: str
    limit: str
    text: str

    def __str__(self) -> str:
        return f"{self.node}: {self.text} [{self.limit}]"


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """The check of one network against one target.

    Attributes:
        target: the profile.
        violations: all of them, in the order of the network.
        used: limit -> (used, most), for the limits that count something.
        facts: proven numbers by layer, for people.
    """

    target: Target
    violations: tuple[Violation, ...]
    used: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the target can do the network."""
        return not self.violations

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "target": self.target.tag,
            "promise": self.target.promise,
            "passed": self.passed,
            "violations": [{"node": v.node, "limit": v.limit, "text": v.text} for v in self.violations],
            "used": {name: {"used": used, "most": most} for name, (used, most) in self.used.items()},
            "facts": dict(self.facts),
        }

    def __str__(self) -> str:
        lines = [f"{self.target.tag}: {self.target.title}"]
        lines += [f"  {name}: {used:,} of {most:,}" for name, (used, most) in self.used.items()]
        lines += [f"  {name}: {fact}" for name, fact in self.facts.items()]
        if self.passed:
            lines.append(f"fits; {PROMISES[self.target.promise]}")
        else:
            lines += [f"does not fit ({len(self.violations)}):", *(f"  {v}" for v in self.violations)]
        return "\n".join(lines)

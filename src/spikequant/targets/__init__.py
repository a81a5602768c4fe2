"""Hardware profiles: which neurons, widths and sizes a chip has, and whether a network keeps to them."""

from spikequant.targets.check import check, refusal, require
from spikequant.targets.page import describe
from spikequant.targets.profile import (
    LeakRule,
    Limits,
    NeuronRule,
    NumberRule,
    StateRule,
    Target,
    WeightRule,
)
from spikequant.targets.registry import TARGETS, target
from spikequant.targets.report import TargetReport, Violation

__all__ = [
    "TARGETS",
    "LeakRule",
    "Limits",
    "NeuronRule",
    "NumberRule",
    "StateRule",
    "Target",
    "TargetReport",
    "Violation",
    "WeightRule",
    "check",
    "describe",
    "refusal",
    "require",
    "target",
]

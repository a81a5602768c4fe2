"""Analysis: comparison of a network before and after quantization."""

from spikequant.analyse.compare import Comparison, LayerBehaviour, Side, compare, paired_difference
from spikequant.analyse.memory import memory_rows
from spikequant.analyse.probe import Observation, observe

__all__ = [
    "Comparison",
    "LayerBehaviour",
    "Observation",
    "Side",
    "compare",
    "memory_rows",
    "observe",
    "paired_difference",
]

"""Analysis: comparison of a network before and after quantization."""

from spikequant.analyse.compare import compare, paired_difference
from spikequant.analyse.memory import memory_rows
from spikequant.analyse.probe import Observation, observe
from spikequant.analyse.records import AnnBaseline, Comparison, LayerBehaviour, LayerOperations, Raster, Side

__all__ = [
    "AnnBaseline",
    "Comparison",
    "LayerBehaviour",
    "LayerOperations",
    "Observation",
    "Raster",
    "Side",
    "compare",
    "memory_rows",
    "observe",
    "paired_difference",
]

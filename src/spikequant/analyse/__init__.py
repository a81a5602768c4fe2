"""Analysis: comparison of a network before and after quantization."""

from spikequant.analyse.ann import ann_baseline
from spikequant.analyse.compare import compare, paired_difference, side_of
from spikequant.analyse.memory import memory_rows
from spikequant.analyse.neurobench import neurobench_footprint, neurobench_model
from spikequant.analyse.probe import Observation, Probe, observe
from spikequant.analyse.records import Comparison, LayerBehaviour, Raster
from spikequant.analyse.side import AnnBaseline, LayerOperations, Side
from spikequant.analyse.silence import Finding, Remedy, diagnose

__all__ = [
    "AnnBaseline",
    "Comparison",
    "Finding",
    "LayerBehaviour",
    "LayerOperations",
    "Observation",
    "Probe",
    "Raster",
    "Remedy",
    "Side",
    "ann_baseline",
    "compare",
    "diagnose",
    "memory_rows",
    "neurobench_footprint",
    "neurobench_model",
    "observe",
    "paired_difference",
    "side_of",
]

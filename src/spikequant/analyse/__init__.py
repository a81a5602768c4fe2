"""Analysis: comparison of a network before and after quantization."""

from spikequant.analyse.allocate import Allocated, allocate, allocation, budget_curve
from spikequant.analyse.ann import ann_baseline
from spikequant.analyse.compare import compare, paired_difference, side_of
from spikequant.analyse.hessian import LayerTrace, Traces, hessian_trace
from spikequant.analyse.memory import memory_rows
from spikequant.analyse.neurobench import neurobench_footprint, neurobench_model
from spikequant.analyse.probe import Observation, Probe, observe
from spikequant.analyse.records import Comparison, LayerBehaviour, Raster
from spikequant.analyse.side import AnnBaseline, LayerOperations, Side
from spikequant.analyse.silence import Finding, Remedy, diagnose

__all__ = [
    "Allocated",
    "AnnBaseline",
    "Comparison",
    "Finding",
    "LayerBehaviour",
    "LayerOperations",
    "LayerTrace",
    "Observation",
    "Probe",
    "Raster",
    "Remedy",
    "Side",
    "Traces",
    "allocate",
    "allocation",
    "ann_baseline",
    "budget_curve",
    "compare",
    "diagnose",
    "hessian_trace",
    "memory_rows",
    "neurobench_footprint",
    "neurobench_model",
    "observe",
    "paired_difference",
    "side_of",
]

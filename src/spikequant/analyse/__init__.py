"""Analysis: comparison of a network before and after quantization."""

from spikequant.analyse.allocate import Allocated, allocate, allocation, budget_curve
from spikequant.analyse.ann import ann_baseline
from spikequant.analyse.compare import compare, paired_difference, side_of
from spikequant.analyse.hessian import hessian_trace
from spikequant.analyse.local_hessian import local_hessian_trace
from spikequant.analyse.memory import memory_rows
from spikequant.analyse.neurobench import neurobench_footprint, neurobench_model
from spikequant.analyse.probe import Observation, Probe, observe
from spikequant.analyse.records import Comparison, LayerBehaviour, Raster
from spikequant.analyse.rises import Rise, Rises, measured_rises
from spikequant.analyse.score import Score, Sensitivities
from spikequant.analyse.sensitivity import SENSITIVITY_METHODS, sensitivity
from spikequant.analyse.side import AnnBaseline, LayerOperations, Side
from spikequant.analyse.side_by_side import Standing, side_by_side
from spikequant.analyse.silence import Finding, Remedy, diagnose
from spikequant.analyse.traces import LayerTrace, Traces

__all__ = [
    "SENSITIVITY_METHODS",
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
    "Rise",
    "Rises",
    "Score",
    "Sensitivities",
    "Side",
    "Standing",
    "Traces",
    "allocate",
    "allocation",
    "ann_baseline",
    "budget_curve",
    "compare",
    "diagnose",
    "hessian_trace",
    "local_hessian_trace",
    "measured_rises",
    "memory_rows",
    "neurobench_footprint",
    "neurobench_model",
    "observe",
    "paired_difference",
    "sensitivity",
    "side_by_side",
    "side_of",
]

"""spikequant: quantize spiking neural networks, and ship integers that do what was measured.

The names below load on first use, so that ``import spikequant`` costs little more than torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Plan": "plan",
    "check_reading": "frontends",
    "from_lava": "frontends",
    "from_nir": "frontends",
    "load_nir": "readers.nir_",
    "load_prepared": "quantize",
    "from_ann": "frontends",
    "quantize_": "quantize",
    "save_prepared": "quantize",
    "calibrate": "quantize",
    "match_firing": "quantize",
    "freeze": "quantize",
    "lower": "quantize",
    "verify": "quantize",
    "paths": "nn.paths",
    "reset": "quantize",
    "fit": "training",
    "evaluate": "training",
    "Comparison": "analyse",
    "allocate": "analyse",
    "ann_baseline": "analyse",
    "hessian_trace": "analyse",
    "sensitivity": "analyse",
    "compare": "analyse",
    "neurobench_footprint": "analyse",
    "neurobench_model": "analyse",
    "diagnose": "analyse",
    "compile": "readers.native",
    "export": "readers.export",
    "shrink": "shrinking",
    "write_report": "report",
    "Provenance": "report",
    "IntNet": "law.network",
    "SpikequantError": "law.errors",
    "Unsupported": "law.errors",
    "WidthError": "law.errors",
    "NotFrozen": "law.errors",
    "PlanError": "law.errors",
    "CaptureError": "law.errors",
    "DataError": "law.errors",
    "ArtifactError": "law.errors",
    "MismatchError": "law.errors",
}
_UNITS = (
    "analyse",
    "capture",
    "data",
    "explore",
    "frontends",
    "law",
    "learn",
    "measure",
    "models",
    "nn",
    "quantizers",
    "readers",
    "report",
    "targets",
    "training",
)

__all__ = ["__version__", *_HOMES, *_UNITS]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"spikequant.{_HOMES[name]}"), name)
    if name in _UNITS:
        return importlib.import_module(f"spikequant.{name}")
    raise AttributeError(f"module 'spikequant' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from spikequant import analyse as analyse
    from spikequant import capture as capture
    from spikequant import data as data
    from spikequant import frontends as frontends
    from spikequant import law as law
    from spikequant import learn as learn
    from spikequant import measure as measure
    from spikequant import models as models
    from spikequant import nn as nn
    from spikequant import quantizers as quantizers
    from spikequant import readers as readers
    from spikequant import report as report
    from spikequant import targets as targets
    from spikequant import training as training
    from spikequant.analyse import Comparison as Comparison
    from spikequant.analyse import allocate as allocate
    from spikequant.analyse import ann_baseline as ann_baseline
    from spikequant.analyse import compare as compare
    from spikequant.analyse import diagnose as diagnose
    from spikequant.analyse import hessian_trace as hessian_trace
    from spikequant.analyse import neurobench_footprint as neurobench_footprint
    from spikequant.analyse import neurobench_model as neurobench_model
    from spikequant.analyse import sensitivity as sensitivity
    from spikequant.explore import explore as explore
    from spikequant.frontends import check_reading as check_reading
    from spikequant.frontends import from_ann as from_ann
    from spikequant.frontends import from_lava as from_lava
    from spikequant.frontends import from_nir as from_nir
    from spikequant.law.errors import ArtifactError as ArtifactError
    from spikequant.law.errors import CaptureError as CaptureError
    from spikequant.law.errors import DataError as DataError
    from spikequant.law.errors import MismatchError as MismatchError
    from spikequant.law.errors import NotFrozen as NotFrozen
    from spikequant.law.errors import PlanError as PlanError
    from spikequant.law.errors import SpikequantError as SpikequantError
    from spikequant.law.errors import Unsupported as Unsupported
    from spikequant.law.errors import WidthError as WidthError
    from spikequant.law.network import IntNet as IntNet
    from spikequant.nn.paths import paths as paths
    from spikequant.plan import Plan as Plan
    from spikequant.quantize import calibrate as calibrate
    from spikequant.quantize import freeze as freeze
    from spikequant.quantize import load_prepared as load_prepared
    from spikequant.quantize import lower as lower
    from spikequant.quantize import match_firing as match_firing
    from spikequant.quantize import quantize_ as quantize_
    from spikequant.quantize import reset as reset
    from spikequant.quantize import save_prepared as save_prepared
    from spikequant.quantize import verify as verify
    from spikequant.readers.export import export as export
    from spikequant.readers.native import compile as compile
    from spikequant.readers.nir_ import load_nir as load_nir
    from spikequant.report import Provenance as Provenance
    from spikequant.report import write_report as write_report
    from spikequant.shrinking import shrink as shrink
    from spikequant.training import evaluate as evaluate
    from spikequant.training import fit as fit

"""spikequant: quantize spiking neural networks, and ship integers that do what was measured.

The names below load on first use, so that ``import spikequant`` costs little more than torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Plan": "plan",
    "quantize_": "quantize",
    "calibrate": "quantize",
    "freeze": "quantize",
    "lower": "quantize",
    "verify": "quantize",
    "reset": "quantize",
    "capture": "capture",
    "fit": "training",
    "evaluate": "training",
    "compare": "analyse",
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
_UNITS = ("data", "law", "measure", "models", "nn", "quantizers", "readers")

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
    from spikequant import data, law, measure, models, nn, quantizers, readers
    from spikequant.analyse import compare
    from spikequant.capture import capture
    from spikequant.law.errors import (
        ArtifactError,
        CaptureError,
        DataError,
        MismatchError,
        NotFrozen,
        PlanError,
        SpikequantError,
        Unsupported,
        WidthError,
    )
    from spikequant.law.network import IntNet
    from spikequant.plan import Plan
    from spikequant.quantize import calibrate, freeze, lower, quantize_, reset, verify
    from spikequant.training import evaluate, fit

"""The verbs: `quantize_`, `calibrate`, `match_firing`, `freeze`, `lower`, `verify`."""

from spikequant.nn.reset import reset_states as reset
from spikequant.quantize.calibrate import calibrate
from spikequant.quantize.calibration_report import CalibrationReport
from spikequant.quantize.dress import quantize_
from spikequant.quantize.freeze import FreezeReport, freeze
from spikequant.quantize.lower import lower
from spikequant.quantize.match_firing import FiringReport, match_firing
from spikequant.quantize.prepared import load_prepared, save_prepared
from spikequant.quantize.report import QuantizedRow, QuantizeReport
from spikequant.quantize.verify import Difference, VerifyReport, verify

__all__ = [
    "CalibrationReport",
    "Difference",
    "FiringReport",
    "FreezeReport",
    "QuantizeReport",
    "QuantizedRow",
    "VerifyReport",
    "calibrate",
    "freeze",
    "load_prepared",
    "lower",
    "match_firing",
    "quantize_",
    "reset",
    "save_prepared",
    "verify",
]

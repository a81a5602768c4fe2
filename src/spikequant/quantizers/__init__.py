"""Quantizers: real tensors to integer codes on a grid, ``x ~ codes * scale``.

One family per file, each a frozen dataclass; `QUANTIZERS` names them, `check_quantizer` holds them to the contract.
"""

from spikequant.quantizers.binary import Binary
from spikequant.quantizers.checks import check_quantizer
from spikequant.quantizers.clipping import (
    CLIPPINGS,
    Clipping,
    FixedClipping,
    KLClipping,
    MaxClipping,
    MSEClipping,
    PercentileClipping,
)
from spikequant.quantizers.fixed_point import FixedPoint
from spikequant.quantizers.interface import Quantizer, ScaleMode
from spikequant.quantizers.lqnet import LQNet
from spikequant.quantizers.lsq import LSQ
from spikequant.quantizers.nearest import nearest_codes
from spikequant.quantizers.power_of_two import PowerOfTwo
from spikequant.quantizers.registry import QUANTIZERS, quantizer_from_dict, quantizer_to_dict
from spikequant.quantizers.rescaw import ReScaW
from spikequant.quantizers.shared_scale import SharedScale
from spikequant.quantizers.sigmoid_sum import SigmoidSum
from spikequant.quantizers.sign_power_of_two import SignPowerOfTwo
from spikequant.quantizers.stateful import State, StatefulQuantizer, is_stateful
from spikequant.quantizers.straight_through import (
    ceil_ste,
    floor_ste,
    round_ste,
    scale_gradient,
    straight_through,
)
from spikequant.quantizers.ternary import Ternary
from spikequant.quantizers.threshold_centred import ThresholdCentred
from spikequant.quantizers.uniform import Uniform

__all__ = [
    "CLIPPINGS",
    "LSQ",
    "QUANTIZERS",
    "Binary",
    "Clipping",
    "FixedClipping",
    "FixedPoint",
    "KLClipping",
    "LQNet",
    "MSEClipping",
    "MaxClipping",
    "PercentileClipping",
    "PowerOfTwo",
    "Quantizer",
    "ReScaW",
    "ScaleMode",
    "SharedScale",
    "SigmoidSum",
    "SignPowerOfTwo",
    "State",
    "StatefulQuantizer",
    "Ternary",
    "ThresholdCentred",
    "Uniform",
    "ceil_ste",
    "check_quantizer",
    "floor_ste",
    "is_stateful",
    "nearest_codes",
    "quantizer_from_dict",
    "quantizer_to_dict",
    "round_ste",
    "scale_gradient",
    "straight_through",
]

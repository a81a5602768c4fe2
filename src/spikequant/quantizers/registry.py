"""Quantizers by name, and their round trip through plain dictionaries (TOML, JSON).

>>> quantizer_to_dict(Binary())
{'name': 'binary', 'ste_limit': 1.0}
>>> quantizer_from_dict({"name": "uniform", "bits": 4, "clipping": {"name": "percentile", "percent": 99.0}})
Uniform(bits=4, grid='zero_preserving', signed=True, clipping=PercentileClipping(percent=99.0), \
rounding='half_even', scale_mode='fixed')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from spikequant.law.errors import PlanError
from spikequant.quantizers.binary import Binary
from spikequant.quantizers.clipping import CLIPPINGS
from spikequant.quantizers.fixed_point import FixedPoint
from spikequant.quantizers.interface import Quantizer
from spikequant.quantizers.lqnet import LQNet
from spikequant.quantizers.lsq import LSQ
from spikequant.quantizers.power_of_two import PowerOfTwo
from spikequant.quantizers.rescaw import ReScaW
from spikequant.quantizers.shared_scale import SharedScale
from spikequant.quantizers.sigmoid_sum import SigmoidSum
from spikequant.quantizers.sign_power_of_two import SignPowerOfTwo
from spikequant.quantizers.ternary import Ternary
from spikequant.quantizers.threshold_centred import ThresholdCentred
from spikequant.quantizers.uniform import Uniform

QUANTIZERS: dict[str, type[Quantizer]] = {
    "uniform": Uniform,
    "fixed_point": FixedPoint,
    "power_of_two": PowerOfTwo,
    "ternary": Ternary,
    "binary": Binary,
    "lsq": LSQ,
    "sigmoid_sum": SigmoidSum,
    "shared_scale": SharedScale,
    "rescaw": ReScaW,
    "sign_power_of_two": SignPowerOfTwo,
    "lqnet": LQNet,
    "threshold_centred": ThresholdCentred,
}


def quantizer_to_dict(quantizer: Quantizer) -> dict[str, Any]:
    """``{"name": ..., every field}`` with a nested dictionary for the clipping rule.

    Raises:
        PlanError: the class is not the one that `QUANTIZERS` has under its name.
    """
    if QUANTIZERS.get(quantizer.name) is not type(quantizer):
        raise PlanError(
            f"{type(quantizer).__name__} is not in QUANTIZERS under its name {quantizer.name!r};"
            " add it to the dict in quantizers/registry.py"
        )
    return _to_dict(quantizer)


def quantizer_from_dict(entries: Mapping[str, Any]) -> Quantizer:
    """The quantizer that `entries` describes; fields left out have their defaults.

    The clipping rule may be its name alone (``"max"``) or a dictionary (``{"name": "mse", "grid": 50}``).

    Raises:
        PlanError: no name, an unknown name, an unknown or missing field, or a value that the class refuses.
    """
    entries = dict(entries)
    clipping = entries.get("clipping")
    if isinstance(clipping, str):
        clipping = {"name": clipping}
    if isinstance(clipping, Mapping):
        entries["clipping"] = _build("clipping", CLIPPINGS, clipping)
    quantizer: Quantizer = _build("quantizer", QUANTIZERS, entries)
    return quantizer


def _to_dict(config: Any) -> dict[str, Any]:
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {"name": config.name} | {
        key: _to_dict(v) if is_dataclass(v) else list(v) if isinstance(v, tuple) else v for key, v in values.items()
    }


def _build(kind: str, classes: Mapping[str, type[Any]], entries: Mapping[str, Any]) -> Any:
    name = entries.get("name")
    if not isinstance(name, str) or name not in classes:
        raise PlanError(f"{kind}: name is {name!r}; expected one of {', '.join(map(repr, classes))}")
    allowed = {field.name: field for field in fields(classes[name])}
    given = {key: value for key, value in entries.items() if key != "name"}
    listed = ", ".join(allowed) or "none"
    for key in given:
        if key not in allowed:
            raise PlanError(f"{kind} {name!r}: unknown field {key!r}; its fields are: {listed}")
    for key, field in allowed.items():
        if key not in given and field.default is MISSING and field.default_factory is MISSING:
            raise PlanError(f"{kind} {name!r}: field {key!r} is missing; its fields are: {listed}")
    return classes[name](**given)

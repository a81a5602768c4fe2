"""Post-training quantization: a float network that has learned, brought into registers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from spikequant.law.errors import PlanError
from spikequant.learn.config import Precision, Register
from spikequant.learn.network import Network, coded
from spikequant.learn.numbers import COMMON_BITS, whole

CANDIDATES = 40


def quantized(network: Network, precision: Precision) -> Network:
    """A new network with the weights and thresholds of a float one, in the registers of `precision`.

    The ends of the grids come from what was learned: the largest weight that gives the smallest mean squared error
    (of 40 between 1/40 of the largest and the largest), the highest threshold for adaptive part and membrane.
    It keeps its position, so that it may also learn on.

    Raises:
        PlanError: `network` is quantized already, or `precision` quantizes nothing.

    Args:
        network: float; left as it is.
        precision: registers of the roles.
    """
    if not network.numbers.real:
        raise PlanError("learn.quantized: the network is quantized already; expected a float one")
    if precision.is_real:
        raise PlanError("learn.quantized: the precision quantizes nothing; name a Register for at least one role")
    weights, adaptive = network.real_weights(), network.real_adaptive()
    top = best_top(weights, precision.register("weight"))
    codes = 2 ** precision.register("threshold").bits
    lowest = float(adaptive.min()) if precision.common_threshold else 0.0
    reach = max(float(adaptive.max()) - lowest, network.config.adapt_mv, 1e-3)
    if precision.common_threshold:
        reach *= codes / max(1, codes - 2)  # the common part is a whole number of codes, and the last code is one less
    held = network.config.threshold_mv + lowest + reach
    reached = precision.replace(membrane_reach_mv=held, threshold_reach_mv=reach)
    result = Network(network.config.replace(w_max=top), reached, engine=network.engine)
    numbers, seed = result.numbers, network.config.seed
    result.weights = result.coded_weights(weights, "ptq")
    result.common = math.floor(lowest / numbers.a_lsb) << COMMON_BITS
    own = adaptive / numbers.a_lsb - whole(result.common)
    result.adaptive = coded(own, numbers.roundings["threshold"], codes - 1, seed, "ptq")
    result.seen = network.seen
    return result


def best_top(weights: npt.NDArray[np.float64], register: Register) -> float:
    """The end of an unsigned grid of the register's bits with the smallest mean squared error.

    >>> round(best_top(np.array([0.0, 0.5, 1.0]), Register(8)), 3)
    1.0
    """
    highest = float(weights.max())
    if not highest > 0.0:
        raise PlanError("learn.quantized: all weights are 0; nothing was learned")
    steps = 2**register.bits - 1

    def error(top: float) -> float:
        codes = np.clip(np.rint(weights / top * steps), 0, steps)
        return float(np.mean((codes * top / steps - weights) ** 2))

    tops: list[Any] = [highest * k / CANDIDATES for k in range(CANDIDATES, 0, -1)]
    best = min(tops, key=error)
    return best if math.isfinite(best) else highest

"""A network small enough for plain Python, and alive within a few steps; and images for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikequant import learn

INPUTS, LEVELS = 12, 16


def tiny(**changes: Any) -> learn.DiehlCook:
    settings = {
        "inputs": INPUTS, "neurons": 5, "levels": LEVELS, "steps": 25, "rate_hz": 400.0, "norm": 0.5, "w_start": 0.8,
        "inhibit_mv": 4.0, "adapt_mv": 0.7, "nu_post": 0.08, "nu_pre": 0.01, "tau_adapt_ms": 3000.0, "refractory": 3,
        "threshold_mv": 6.0, "reset_mv": 1.0, "seed": 3,
    }  # fmt: skip
    return learn.DiehlCook(**{**settings, **changes})


def images(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, LEVELS + 1, (n, INPUTS)).astype(np.uint8)


NEAR = {"membrane_reach_mv": 24.0, "threshold_reach_mv": 16.0}
FOUR = learn.precision_of(weight=4, membrane=7, threshold=6, trace=3, **NEAR)

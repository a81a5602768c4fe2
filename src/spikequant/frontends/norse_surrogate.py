"""Surrogates of Norse by name and slope, proven on samples; the others keep their own backward.

==============  ======================================  =========================================
`method`        derivative at ``u = v - v_th``          here
==============  ======================================  =========================================
``super``       ``1 / (1 + |u|)^2``, whatever `alpha`   ``fast_sigmoid``, slope 1
``triangle``    ``a max(0, 1 - |u|)``                   ``triangle``, slope 1, if ``alpha = 1``
``tanh``        ``1 - tanh(a u)^2``                     ``sigmoid``, slope 4, if ``alpha = 2``
``heavi_erfc``  ``2 exp(-(a u)^2) / sqrt(pi)``          ``gaussian``, slope ``sqrt 8``, if ``alpha = 2``
==============  ======================================  =========================================
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikequant.frontends.library import refuse
from spikequant.nn import Surrogate
from spikequant.nn.surrogate import slope_of

NAMED = {
    "super": Surrogate("fast_sigmoid", 1.0),
    "triangle": Surrogate("triangle", 1.0),
    "tanh": Surrogate("sigmoid", 4.0),
    "heavi_erfc": Surrogate("gaussian", math.sqrt(8.0)),
}
METHODS = (*NAMED, "circ", "heaviside")
SAMPLES = torch.tensor([-3.0, -1.1, -0.3, -0.01, 0.02, 0.4, 1.1, 2.5])


@dataclass(frozen=True)
class NorseSpike:
    """Norse's spike function with its method and alpha."""

    method: str
    alpha: float

    def __call__(self, u: Tensor) -> Tensor:
        """1 where ``u > 0``."""
        spikes: Tensor = importlib.import_module("norse.torch.functional.threshold").threshold(
            u, self.method, self.alpha
        )
        return spikes


def read_surrogate(path: str, p: Any) -> Surrogate:
    """The surrogate that `p` names."""
    if p.method not in METHODS:
        raise refuse(path, "p.method", p.method, f"expected one of {', '.join(METHODS)}")
    spike = NorseSpike(p.method, float(p.alpha))
    named = NAMED.get(p.method)
    if named is not None and torch.allclose(named.derivative(SAMPLES), slope_of(spike, SAMPLES), rtol=1e-5, atol=1e-6):
        return named
    return Surrogate(p.method, spike=spike)

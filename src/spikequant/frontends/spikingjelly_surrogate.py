"""Surrogates of SpikingJelly by name and slope, proven on samples; the others keep their own backward.

==================  ==========================================  =====================
SpikingJelly        derivative at ``u = v - v_threshold``        here
==================  ==========================================  =====================
``ATan``            ``a/2 / (1 + (pi/2 a u)^2)``                 ``atan``, slope a
``Sigmoid``         ``a sig(a u) (1 - sig(a u))``                ``sigmoid``, slope a
``PiecewiseQuadratic``  ``a max(0, 1 - |a u|)``                  ``triangle``, slope a
``Erf``             ``a / sqrt(pi) exp(-(a u)^2)``               ``gaussian``, slope a sqrt 2
==================  ==========================================  =====================
"""

from __future__ import annotations

import math
from typing import Any

import torch

from spikequant.frontends.library import refuse
from spikequant.law.errors import Unsupported
from spikequant.nn import Surrogate
from spikequant.nn.surrogate import slope_of

NAMES = {
    "ATan": ("atan", 1.0),
    "Sigmoid": ("sigmoid", 1.0),
    "PiecewiseQuadratic": ("triangle", 1.0),
    "Erf": ("gaussian", math.sqrt(2.0)),
}
SAMPLES = torch.tensor([-3.0, -1.1, -0.3, -0.01, 0.0, 0.02, 0.4, 1.1, 2.5])


def read_surrogate(path: str, function: Any) -> Surrogate:
    """The surrogate of a neuron.

    Raises:
        Unsupported: what it gives is not 1 where its argument is at least 0, and 0 elsewhere.
    """
    kind = type(function).__name__
    if getattr(function, "spiking", True) is not True:
        why = "it gives its primitive function, not spikes; call set_spiking_mode(True)"
        raise refuse(path, "surrogate_function.spiking", function.spiking, why)
    with torch.no_grad():
        fired = function(SAMPLES.clone())
    if not torch.equal(fired, (SAMPLES >= 0).to(fired.dtype)):
        raise Unsupported(f"{path}: surrogate_function = {kind}: it does not fire exactly at v >= v_threshold")
    alpha = getattr(function, "alpha", None)
    if kind in NAMES and isinstance(alpha, (int, float)) and alpha > 0:
        name, factor = NAMES[kind]
        named = Surrogate(name, factor * float(alpha))
        if torch.allclose(named.derivative(SAMPLES), slope_of(function, SAMPLES), rtol=1e-5, atol=1e-7):
            return named
    return Surrogate(kind, spike=function)

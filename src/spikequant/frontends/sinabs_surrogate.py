"""Surrogates of sinabs: `Gaussian` around the threshold has a name here, proven on samples; the others stay themselves.

They are functions of the membrane and the threshold.  With several spikes in a step sinabs takes
one value, at the membrane before the first spike, as the derivative of the count (`Surrogate.whole`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikequant.frontends.library import refuse
from spikequant.nn import Surrogate
from spikequant.nn.surrogate import slope_of

SAMPLES = torch.tensor([-3.0, -1.1, -0.3, -0.01, 0.0, 0.02, 0.4, 1.1, 2.5])


class SinabsSpike:
    """A spike of sinabs as a function of ``u = v - threshold``, with its own backward."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], threshold: Tensor) -> None:
        self.function, self.threshold = function, threshold

    def __call__(self, u: Tensor) -> Tensor:
        """1 where ``u >= 0``."""
        threshold = self.threshold.to(u)
        spikes: Tensor = importlib.import_module("sinabs.activation").SingleSpike.apply(
            u + threshold, threshold, self.function
        )
        return spikes


def read_surrogate(path: str, module: Any, *, whole: bool) -> Surrogate:
    """The surrogate of a layer."""
    function = module.surrogate_grad_fn
    name = type(function).__name__
    if not callable(function):
        raise refuse(path, "surrogate_grad_fn", function, "expected a function of membrane and threshold")
    spike = SinabsSpike(function, module.spike_threshold.detach())
    sigma = getattr(function, "sigma", None)
    if name == "Gaussian" and isinstance(sigma, (int, float)) and sigma > 0:
        named = Surrogate("gaussian", 1.0 / sigma, whole=whole)
        one = SinabsSpike(function, module.spike_threshold.detach().reshape(-1)[:1])
        if torch.allclose(named.derivative(SAMPLES), slope_of(one, SAMPLES), rtol=1e-5, atol=1e-6):
            return named
    return Surrogate(name, spike=spike, whole=whole)

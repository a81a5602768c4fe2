"""Surrogates of snnTorch by name and slope, proven on samples; others keep their own backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikequant.law.errors import Unsupported
from spikequant.nn import Surrogate
from spikequant.nn.surrogate import slope_of

SLOPES = {"atan": "alpha", "fast_sigmoid": "slope", "sigmoid": "slope"}
SAMPLES = torch.tensor([-3.0, -1.0, -0.3, -0.01, 0.0, 0.02, 0.4, 1.0, 2.5])


def read_surrogate(path: str, spike: Callable[[Tensor], Tensor]) -> Surrogate:
    """The surrogate of a neuron.

    The name is taken from the function that made it and is checked: its derivative on
    samples must be the named one.  A spike function without a name here keeps its own
    backward.

    Raises:
        Unsupported: it does not fire exactly where its argument is positive.
    """
    try:
        with torch.no_grad():
            fired = spike(SAMPLES.clone())
    except TypeError as error:  # LSO of snnTorch 1.0 cannot be called at all
        raise Unsupported(f"{path}: spike_grad fails on its own ({error}); use another surrogate") from error
    if not torch.equal(fired, (SAMPLES > 0).to(fired.dtype)):
        raise Unsupported(f"{path}: spike_grad does not fire exactly at mem > threshold; expected a step function")
    maker = getattr(spike, "__qualname__", type(spike).__name__).partition(".")[0]
    named = _named(maker, spike)
    if named is not None and torch.allclose(named.derivative(SAMPLES), slope_of(spike, SAMPLES), rtol=1e-5, atol=1e-7):
        return named
    return Surrogate(maker, spike=spike)


def _named(maker: str, spike: Callable[[Tensor], Tensor]) -> Surrogate | None:
    if maker == "straight_through_estimator":
        return Surrogate("straight_through", 1.0)
    cells = getattr(spike, "__closure__", None) or ()
    names = getattr(getattr(spike, "__code__", None), "co_freevars", ())
    slopes = {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}
    slope = slopes.get(SLOPES.get(maker, ""))
    return Surrogate(maker, float(slope)) if isinstance(slope, (int, float)) and slope > 0 else None

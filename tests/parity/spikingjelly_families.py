"""Random neurons of SpikingJelly over the legal range of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from spikingjelly.activation_based import neuron, surrogate
from tests.parity.harness import Draw, Family
from torch import nn

from spikequant.frontends.spikingjelly import LIBRARY

SURROGATES: tuple[Callable[..., nn.Module], ...] = (
    surrogate.ATan, surrogate.Sigmoid, surrogate.PiecewiseQuadratic, surrogate.Erf,
    surrogate.SoftSign, surrogate.PiecewiseExp, surrogate.Rect,
)  # fmt: skip


def thresholds(rng: np.random.Generator, window: float = 20.0, gain: float = 1.0) -> dict[str, Any]:
    """A distance between rest and threshold that is crossed now and then, and one of the three resets.

    `window` steps of input, each times `gain`, are what the membrane sums up in the long run.
    """
    height = gain * min(window, 20.0) ** 0.5 * float(np.exp(rng.uniform(np.log(0.1), np.log(3.0))))
    rest = (None, 0.0, height * float(rng.uniform(-2.0, 2.0)))[rng.integers(3)]
    return {"v_threshold": height + (rest or 0.0), "v_reset": rest}


def options(rng: np.random.Generator) -> dict[str, Any]:
    function = SURROGATES[rng.integers(len(SURROGATES))](alpha=float(rng.uniform(0.5, 6.0)))
    return {"surrogate_function": function, "detach_reset": bool(rng.integers(2)), "step_mode": "sm"[rng.integers(2)]}


def leaky(rng: np.random.Generator) -> dict[str, Any]:
    """A time constant between 1.02 and 101 steps, with and without `decay_input`."""
    tau, decay_input = 1.0 + float(np.exp(rng.uniform(np.log(0.02), np.log(100.0)))), bool(rng.integers(2))
    given = thresholds(rng, tau, 1 / tau if decay_input else 1.0)
    return {"tau": tau, "decay_input": decay_input, **given, **options(rng)}


def parametric(rng: np.random.Generator) -> dict[str, Any]:
    given = leaky(rng)
    return {"init_tau": given.pop("tau"), **given}


def simple(rng: np.random.Generator) -> dict[str, Any]:
    """The simple neurons have no soft reset, and start at 0 wherever they are reset to."""
    given = leaky(rng)
    return {**given, "v_reset": given["v_reset"] or 0.0}


def cuba(rng: np.random.Generator) -> nn.Module:
    c, v = float(rng.uniform(0, 0.95)), float(rng.uniform(0, 0.95))
    given = thresholds(rng, 1 / ((1 - c) * (1 - v)))
    if given["v_reset"] is not None:
        given = {"v_threshold": abs(given["v_threshold"]) + 0.1, "v_reset": 0.0}
    more = options(rng)
    module = neuron.CUBALIFNode(c, v, **given, surrogate_function=more["surrogate_function"])
    module.step_mode, module.detach_reset = more["step_mode"], more["detach_reset"]
    return module


MAKERS: dict[str, Callable[[np.random.Generator], nn.Module]] = {
    "IFNode": lambda rng: neuron.IFNode(**thresholds(rng), **options(rng)),
    "LIFNode": lambda rng: neuron.LIFNode(**leaky(rng)),
    "ParametricLIFNode": lambda rng: neuron.ParametricLIFNode(**parametric(rng)),
    "SimpleIFNode": lambda rng: neuron.SimpleIFNode(**thresholds(rng), **options(rng)),
    "SimpleLIFNode": lambda rng: neuron.SimpleLIFNode(**simple(rng)),
    "CUBALIFNode": cuba,
}


def with_shape(make: Callable[[np.random.Generator], nn.Module]) -> Draw:
    return lambda rng: (make(rng), (6,) if rng.random() < 0.7 else (3, 4, 4))


FAMILIES = [Family(LIBRARY, name, with_shape(make)) for name, make in MAKERS.items()]

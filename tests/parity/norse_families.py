"""Random neurons of Norse over the legal range of their parameters."""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import numpy as np
import torch
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.functional.reset import reset_subtract, reset_value
from tests.parity.harness import Draw, Family

from spikequant.frontends.norse import LIBRARY

METHODS = ("super", "triangle", "tanh", "circ", "heavi_erfc")


def shape_of(rng: np.random.Generator) -> tuple[int, ...]:
    return (6,) if rng.random() < 0.7 else (3, 4, 4)


def value(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
    """A number, or one number per channel."""
    size = () if rng.random() < 0.6 else shape[:1] + (1,) * (len(shape) - 1)
    return torch.tensor(rng.uniform(low, high, size), dtype=torch.float32)


def rates(rng: np.random.Generator, shape: tuple[int, ...], dt: float) -> dict[str, Any]:
    """Shares of 0.03 to 0.9 of a state that go in one step."""
    return {
        "tau_mem_inv": value(rng, shape, 0.03 / dt, 0.9 / dt),
        "tau_syn_inv": value(rng, shape, 0.03 / dt, 0.9 / dt),
    }


def levels(rng: np.random.Generator, reach: float) -> dict[str, Any]:
    """Rest, threshold and reset; half of the neurons have the library's zeros."""
    height = reach * float(np.exp(rng.uniform(np.log(0.15), np.log(1.5))))
    rest = float(rng.uniform(-1, 1)) if rng.random() < 0.4 else 0.0
    reset = rest if rng.random() < 0.6 else rest + height * float(rng.uniform(-1.5, 0.8))
    return {name: torch.tensor(v) for name, v in (("v_leak", rest), ("v_th", rest + height), ("v_reset", reset))}


def surrogate(rng: np.random.Generator) -> dict[str, Any]:
    alpha = (100.0, 1.0, 2.0, float(rng.uniform(0.5, 5)))[rng.integers(4)]
    return {"method": METHODS[rng.integers(len(METHODS))], "alpha": torch.tensor(alpha)}


def lif_parameters(rng: np.random.Generator, shape: tuple[int, ...], dt: float) -> norse.LIFParameters:
    return norse.LIFParameters(**rates(rng, shape, dt), **levels(rng, 1.0), **surrogate(rng))


def step_of(rng: np.random.Generator) -> float:
    return 0.001 if rng.random() < 0.6 else float(rng.uniform(0.0005, 0.01))


def lif(rng: np.random.Generator, kind: type) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape, dt = shape_of(rng), step_of(rng)
    return kind(p=lif_parameters(rng, shape, dt), dt=dt), shape


def lif_over_time(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape, dt = shape_of(rng), step_of(rng)
    p = lif_parameters(rng, shape, dt)
    return norse.LIF(p=p, dt=dt, record_states=bool(rng.integers(2))), shape


def box(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape, dt = shape_of(rng), step_of(rng)
    reset = (reset_value, reset_subtract)[rng.integers(2)]
    given = {"tau_mem_inv": value(rng, shape, 0.03 / dt, 0.9 / dt), **levels(rng, 0.5), **surrogate(rng)}
    return norse.LIFBoxCell(LIFBoxParameters(**given, reset_method=reset), dt=dt), shape


def iaf(rng: np.random.Generator, kind: type) -> tuple[torch.nn.Module, tuple[int, ...]]:
    given = levels(rng, 3.0)
    return kind(norse.IAFParameters(v_th=given["v_th"], v_reset=given["v_leak"], **surrogate(rng))), shape_of(rng)


def recurrent(rng: np.random.Generator, kind: type) -> tuple[torch.nn.Module, tuple[int, ...]]:
    dt = step_of(rng)
    module = kind(6, 5, p=lif_parameters(rng, (5,), dt), dt=dt, autapses=bool(rng.integers(2)))
    return module, (6,)


DRAWS: dict[str, Draw] = {
    "LIFCell": lambda rng: lif(rng, norse.LIFCell),
    "LIF": lif_over_time,
    "LIFBoxCell": box,
    "IAFCell": lambda rng: iaf(rng, norse.IAFCell),
    "IAF": lambda rng: iaf(rng, norse.IAF),
    "LIFRecurrentCell": lambda rng: recurrent(rng, norse.LIFRecurrentCell),
    "LIFRecurrent": lambda rng: recurrent(rng, norse.LIFRecurrent),
}
FAMILIES = [Family(LIBRARY, name, draw) for name, draw in DRAWS.items()]

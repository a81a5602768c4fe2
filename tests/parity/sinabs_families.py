"""Random neurons of sinabs over the legal range of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import sinabs.activation as act
import sinabs.layers as sl
import torch
from tests.parity.harness import BATCH, Draw, Family

from spikequant.frontends.sinabs import LIBRARY

SURROGATES = (
    act.SingleExponential(), act.PeriodicExponential(), act.Heaviside(0.5), act.Gaussian(), act.Gaussian(sigma=0.3),
    act.MultiGaussian(), act.SingleExponential(grad_width=0.2, grad_scale=2.0),
)  # fmt: skip


def shape_of(rng: np.random.Generator) -> tuple[int, ...]:
    return (6,) if rng.random() < 0.7 else (3, 4, 4)


def value(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
    """A number, or one number per channel, evenly over the orders of magnitude."""
    size = () if rng.random() < 0.6 else shape[:1] + (1,) * (len(shape) - 1)
    return torch.tensor(np.exp(rng.uniform(np.log(low), np.log(high), size)), dtype=torch.float32)


def firing(rng: np.random.Generator, shape: tuple[int, ...], reach: float) -> dict[str, Any]:
    """How a neuron fires and is reset, with a threshold that a drive of size `reach` crosses now and then."""
    kind = rng.integers(4)
    threshold = value(rng, shape, 0.2 * reach, 1.5 * reach)
    given: dict[str, Any] = {"spike_threshold": threshold, "surrogate_grad_fn": SURROGATES[rng.integers(7)]}
    given["spike_fn"] = (act.MultiSpike, act.MultiSpike, act.SingleSpike, act.MaxSpike(int(rng.integers(1, 9))))[kind]
    if kind == 2:
        amount = float(threshold.max() * rng.uniform(0.5, 1.5))
        resets = (act.MembraneReset(), act.MembraneSubtract(), act.MembraneSubtract(amount))
        given["reset_fn"] = resets[rng.integers(3)]
    if rng.random() < 0.5:
        given["min_v_mem"] = -float(rng.uniform(0.1, 3)) * reach
    return given


def squeeze(rng: np.random.Generator) -> tuple[dict[str, int], str]:
    """The arguments and the name of one of the layouts."""
    return ({}, "") if rng.random() < 0.5 else ({"batch_size": BATCH}, "Squeeze")


def iaf(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape, (layout, suffix) = shape_of(rng), squeeze(rng)
    tau_syn = float(np.exp(rng.uniform(0, 3))) if rng.random() < 0.3 else None
    given = firing(rng, shape, 2.0 if tau_syn is None else 2.0 * tau_syn)
    return getattr(sl, f"IAF{suffix}")(tau_syn=tau_syn, **given, **layout), shape


def lif(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape, (layout, suffix) = shape_of(rng), squeeze(rng)
    tau, norm = value(rng, shape, 1.0, 60.0), bool(rng.integers(2))
    tau_syn = value(rng, shape, 0.5, 20.0) if rng.random() < 0.5 else None
    reach = (1.0 / float(tau.mean()) ** 0.5 if norm else float(tau.mean()) ** 0.5) * (1.0 if tau_syn is None else 2.0)
    more = {"norm_input": norm, "train_alphas": bool(rng.integers(2)), "record_states": bool(rng.integers(2))}
    layer = getattr(sl, f"LIF{suffix}")
    return layer(tau_mem=tau, tau_syn=tau_syn, **firing(rng, shape, reach), **more, **layout), shape


DRAWS: dict[str, Draw] = {"IAF": iaf, "LIF": lif}
FAMILIES = [Family(LIBRARY, name, draw) for name, draw in DRAWS.items()]

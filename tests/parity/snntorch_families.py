"""Random neurons of snnTorch over the legal range of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import snntorch as snn
import torch
from snntorch import surrogate
from tests.parity.harness import Draw, Family

from spikequant.frontends.snntorch import LIBRARY

SURROGATES = (
    None, surrogate.atan(alpha=3.5), surrogate.fast_sigmoid(slope=10), surrogate.sigmoid(slope=4),
    surrogate.straight_through_estimator(), surrogate.heaviside(),
    surrogate.SFS(slope=20, B=2), surrogate.triangular(threshold=1), surrogate.spike_rate_escape(beta=1, slope=3),
)  # fmt: skip


def shape_of(rng: np.random.Generator) -> tuple[int, ...]:
    return (6,) if rng.random() < 0.7 else (3, 4, 4)


def value(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> Any:
    """A number, a tensor of one, or one number per channel."""
    kind = rng.integers(3)
    if kind == 0:
        return float(rng.uniform(low, high))
    size = (1,) if kind == 1 else shape[:1] + (1,) * (len(shape) - 1)
    return torch.tensor(rng.uniform(low, high, size), dtype=torch.float32)


def decay(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Mostly inside 0 to 1; snnTorch clips what is outside."""
    return value(rng, shape, -0.1, 1.1) if rng.random() < 0.2 else value(rng, shape, 0.0, 1.0)


def options(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Any]:
    hidden = bool(rng.random() < 0.5)
    return {
        "threshold": value(rng, shape, 0.05, 2.0),
        "reset_mechanism": str(rng.choice(["subtract", "zero", "none"])),
        "init_hidden": hidden,
        "output": hidden and bool(rng.random() < 0.5),
        "learn_beta": bool(rng.random() < 0.4),
        "learn_threshold": bool(rng.random() < 0.4),
        "spike_grad": SURROGATES[rng.integers(len(SURROGATES))],
    }


def leaky(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape = shape_of(rng)
    graded = float(rng.uniform(0.2, 3)) if rng.random() < 0.3 else 1.0
    more = {"graded_spikes_factor": graded, "reset_delay": bool(rng.random() < 0.7)}
    return snn.Leaky(beta=decay(rng, shape), **options(rng, shape), **more), shape


def synaptic(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape = shape_of(rng)
    more = {"learn_alpha": bool(rng.random() < 0.4), "reset_delay": bool(rng.random() < 0.7)}
    return snn.Synaptic(alpha=decay(rng, shape), beta=decay(rng, shape), **options(rng, shape), **more), shape


def lapicque(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape = shape_of(rng)
    given = options(rng, shape) | {"learn_beta": False}
    if rng.random() < 0.5:
        return snn.Lapicque(beta=float(rng.uniform(0.4, 0.99)), **given), shape
    dt = float(rng.uniform(0.1, 1.0))
    r, c = float(rng.uniform(0.5, 5)), float(rng.uniform(2.0, 8.0))
    return snn.Lapicque(R=r, C=c, time_step=dt, **given), shape


def rleaky(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape = shape_of(rng)
    given = options(rng, shape) | {"reset_delay": bool(rng.random() < 0.7)}
    return snn.RLeaky(beta=decay(rng, shape), **given, **weights(rng, shape)), shape


def rsynaptic(rng: np.random.Generator) -> tuple[torch.nn.Module, tuple[int, ...]]:
    shape = shape_of(rng)
    given = options(rng, shape) | {"learn_alpha": bool(rng.random() < 0.4)}
    return snn.RSynaptic(alpha=decay(rng, shape), beta=decay(rng, shape), **given, **weights(rng, shape)), shape


def weights(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Any]:
    learn = {"learn_recurrent": bool(rng.random() < 0.7)}
    return learn | ({"linear_features": 6} if len(shape) == 1 else {"conv2d_channels": 3, "kernel_size": 3})


DRAWS: dict[str, Draw] = {
    "Leaky": leaky,
    "Synaptic": synaptic,
    "Lapicque": lapicque,
    "RLeaky": rleaky,
    "RSynaptic": rsynaptic,
}
FAMILIES = [Family(LIBRARY, name, draw) for name, draw in DRAWS.items()]

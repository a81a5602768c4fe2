"""Random NIR neurons against the interpreter of their equations: T = 50, batch 8, every spike equal, in float64.

Every configuration is a graph Input -> Linear -> primitive -> Output with one value per neuron
for every parameter.  The full sweep is marked `conformance`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from spikequant import from_nir

nir = pytest.importorskip("nir")
from tests.frontends.nir_interpreter import Interpreter  # noqa: E402 - needs nir

STEPS, BATCH, NEURONS = 50, 8, 5
QUICK, FULL = 12, 200
KINDS = ("IF", "LIF", "CubaLIF", "Threshold", "LI", "I", "CubaLI")


def choices(rng: np.random.Generator) -> dict:
    return {
        "integrator": str(rng.choice(["euler", "exponential", "impulse"])),
        "reset": str(rng.choice(["v_reset", "subtract"])),
        "current": str(rng.choice(["same_step", "next_step"])),
        "compare": str(rng.choice([">", ">="])),
        "dt": float(10 ** rng.uniform(-4, 1)),
    }


def each(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """One value per neuron, or the same for all."""
    return rng.uniform(low, high, NEURONS) if rng.random() < 0.7 else np.full(NEURONS, rng.uniform(low, high))


def primitive(kind: str, rng: np.random.Generator, chosen: dict):
    """A node whose membrane comes near its threshold now and then."""
    dt = chosen["dt"]
    tau = dt * np.exp(each(rng, np.log(1.02), np.log(40.0)))
    tau_syn = dt * np.exp(each(rng, np.log(1.02), np.log(10.0)))
    sign = rng.choice([-1.0, 1.0], NEURONS) if rng.random() < 0.2 else 1.0
    leak = each(rng, -0.3, 0.3) if rng.random() < 0.5 else np.zeros(NEURONS)
    fires = {"v_threshold": each(rng, 0.2, 1.5)}
    resets = chosen["reset"] == "v_reset" and rng.random() < 0.6
    fires["v_reset"] = each(rng, -0.5, 0.15) if resets else np.zeros(NEURONS)
    gain = sign * each(rng, 0.5, 2.0)
    made = {
        "Threshold": lambda: nir.Threshold(threshold=each(rng, -0.5, 1.5)),
        "IF": lambda: nir.IF(r=gain / dt, **fires),
        "I": lambda: nir.I(r=gain / dt),
        "LIF": lambda: nir.LIF(tau=tau, r=gain * tau / dt, v_leak=leak, **fires),
        "LI": lambda: nir.LI(tau=tau, r=gain * tau / dt, v_leak=leak),
        "CubaLIF": lambda: nir.CubaLIF(
            tau_mem=tau, tau_syn=tau_syn, r=gain * tau / dt, v_leak=leak, w_in=each(rng, 0.3, 1.2), **fires
        ),
        "CubaLI": lambda: nir.CubaLI(tau_mem=tau, tau_syn=tau_syn, r=gain * tau / dt, v_leak=leak, w_in=each(rng, 0.3, 1.2)),
    }  # fmt: skip
    return made[kind]()


def compare(kind: str, seed: int) -> tuple[int, int, int]:
    """Neuron-steps, spikes and how many differ of one configuration; a readout must agree to rounding."""
    rng = np.random.default_rng([seed, *kind.encode()])
    chosen = choices(rng)
    weight = rng.normal(0.3, 0.5, (NEURONS, 6))
    node = primitive(kind, rng, chosen)
    graph = nir.NIRGraph.from_list(nir.Linear(weight=weight), node)
    x = (rng.random((STEPS, BATCH, 6)) < 0.4).astype(np.float64)
    wanted = Interpreter(graph, **chosen).run(x)
    network = from_nir(graph, **chosen)
    with torch.no_grad():
        got = network(torch.from_numpy(x)).numpy()
    if kind in ("LI", "I", "CubaLI"):
        assert np.abs(got - wanted).max() <= 1e-9 * max(1.0, np.abs(wanted).max())
        return wanted.size, int((wanted != 0).sum()), 0
    return wanted.size, int(wanted.sum()), int((got != wanted).sum())


def sweep(kind: str, seeds: range) -> None:
    found = Counter()
    for seed in seeds:
        size, spikes, differing = compare(kind, seed)
        found["differing"] += differing
        found["alive"] += 0.01 <= spikes / size <= (1.0 if kind in ("LI", "I", "CubaLI") else 0.99)
    assert found["differing"] == 0
    assert found["alive"] >= 0.7 * len(seeds)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_neuron_follows_its_equations(kind):
    sweep(kind, range(QUICK))


@pytest.mark.conformance
@pytest.mark.parametrize("kind", KINDS)
def test_a_read_neuron_follows_its_equations_in_full(kind):
    sweep(kind, range(FULL))

"""The NIR paper's LIF neuron in 11 simulators, and how `from_nir` has to be told to do the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nir
import numpy as np
import torch

from spikequant import from_nir

DT, TAU, THRESHOLD = 1e-4, 0.0025, 0.1


@dataclass(frozen=True)
class Simulator:
    """How one simulator runs it.

    ``late_input`` and ``late_output``: steps that its input or its spikes wait.  ``tolerance``:
    largest difference of the membranes, in thresholds, away from spikes.
    """

    integrator: str
    reset: str = "v_reset"
    late_input: int = 0
    late_output: int = 0
    tolerance: float = 1e-5
    why: str = ""


SIMULATORS = {
    "exact": Simulator(
        "exponential", tolerance=0.2, why="it fires between two steps and goes on from 0 within the step"
    ),
    "nengo": Simulator("exponential", why="shows v / threshold"),
    "norse": Simulator("euler"),
    "snntorch": Simulator("euler", why="shows v / (dt / tau)"),
    "spinnaker2": Simulator("euler", why="shows 24.995 v, 1 / (dt / tau) being 25"),
    "spyx": Simulator(
        "euler", "subtract", late_output=1, tolerance=0.1, why="its reset comes with the spike, one step late"
    ),
    "sinabs": Simulator("impulse", "subtract"),
    "rockpool": Simulator("impulse", "subtract"),
    "lava_cpu_float": Simulator("euler", late_input=1),
    "lava_cpu_fixed": Simulator(
        "euler", late_input=1, tolerance=0.02, why="integers: 12-bit decay, products cut toward 0"
    ),
    "lava_loihi_fixed": Simulator("euler", late_input=1, tolerance=0.02, why="as lava_cpu_fixed; shows 128 at a spike"),
}


@dataclass(frozen=True)
class Compared:
    """Spike times of the trace and ours, the factor of the membranes, and their largest difference in thresholds."""

    wanted: list[int]
    got: list[int]
    factor: float
    difference: float


def traces(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "nir" / "nir_paper" / "lif_traces.npz") as file:
        return {name: file[name] for name in file.files}


def graph(simulator: Simulator) -> nir.NIRGraph:
    one = np.ones(1)
    lif = nir.LIF(tau=TAU * one, r=one, v_leak=0 * one, v_threshold=THRESHOLD * one)
    late = [nir.Delay(delay=steps * DT * one) for steps in (simulator.late_input, simulator.late_output)]
    return nir.NIRGraph.from_list(late[0], nir.Linear(weight=np.eye(1)), lif, late[1])


def compare(simulator: Simulator, trace: np.ndarray, inputs: np.ndarray) -> Compared:
    """Run the neuron as this simulator does, on the same input."""
    network = from_nir(graph(simulator), dt=DT, integrator=simulator.integrator, reset=simulator.reset)
    neuron = network.lif
    neuron.watch = []
    with torch.no_grad():
        spikes = network(torch.from_numpy(inputs).float()[:, None, None])[:, 0, 0].numpy()
    v = torch.stack([state["v"][0, 0] for state in neuron.watch]).numpy().astype(np.float64)
    wanted, got = (np.flatnonzero(s).tolist() for s in (trace[:, 2], spikes))
    quiet = np.ones(len(v), dtype=bool)
    for step in {*wanted, *got}:
        quiet[max(0, step - 1) : step + 2] = False
    shown = trace[:, 1]
    factor = float(shown[quiet] @ v[quiet] / (v[quiet] @ v[quiet]))
    return Compared(wanted, got, factor, float(np.abs(shown / factor - v)[quiet].max()) / THRESHOLD)

"""Writes benchmarks/nir_networks.md: the NIR files at hand through the whole journey, and LIF traces of 11 simulators.

python benchmarks/nir_networks.py [--data FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spikequant as sq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.frontends.nir_traces import SIMULATORS, compare, traces  # noqa: E402 - a module of the tests

EULER = {"dt": 1e-4, "integrator": "euler", "current": "same_step"}
BRAILLE = {**EULER, "reset": "v_reset"}
SUBTRACT = {**EULER, "reset": "subtract"}
OLD = {"rename": {"lif1.lif": "lif1"}}
LIF = {"dt": 1e-4, "reset": "v_reset"}
FILES: dict[str, dict[str, Any]] = {
    "nir_paper/cnn_sinabs.nir": {"dt": 1, "reset": "subtract"},
    "nir_paper/braille_noDelay_bias_zero.nir": BRAILLE,
    "nir_paper/braille_noDelay_bias_zero_subgraph.nir": BRAILLE | OLD,
    "nir_paper/braille_noDelay_noBias_subtract.nir": SUBTRACT,
    "nir_paper/braille_noDelay_noBias_subtract_subgraph.nir": SUBTRACT | OLD,
    "nirtorch/braille.nir": BRAILLE,
    "norse/braille.nir": BRAILLE,
    "rockpool/braille.nir": BRAILLE | {"dt": 1},
    "nir_paper/lif_norse.nir": LIF | {"integrator": "euler"},
    "nir_paper/lif_rockpool.nir": LIF | {"integrator": "impulse", "reset": "subtract"},
    "nir_paper/two_lif_neurons.nir": LIF | {"integrator": "euler"},
    "nirtorch/feedback_graph.nir": LIF | {"dt": 1e-3, "integrator": "euler"},
}
HEADER = """# NIR networks

The 12 NIR files at hand, read by `sq.from_nir`, quantized to 8-bit weights and 16-bit states, trained by one step (SGD,
learning rate 1e-4), frozen, lowered and verified against the golden model on at most 4 samples: every spike and every
stored state. Written by `python benchmarks/nir_networks.py` on {date} at commit {commit};
torch {torch}, numpy {numpy}, nir {nir}.

The N-MNIST network gets the first 300 ms of recordings in steps of 1 ms, one sample per class; the Braille networks get
random spikes (their recordings are not at hand) drawn so that both layers fire; single neurons get the paper's input.

"""


def drives(rng: np.random.Generator, channels: int) -> torch.Tensor:
    """Random spikes (or counts of them) at a random rate per channel: ``[256, 4, channels]``."""
    rates = rng.random(channels) * (rng.random(channels) < rng.random())
    most = int(rng.choice([1, 1, 4, 60]))
    return torch.from_numpy(np.floor((rng.random((256, 4, channels)) < rates) * most)).float()


def spikes_by_layer(network: torch.nn.Module, x: torch.Tensor) -> list[int]:
    """How many spikes each layer of neurons gives."""
    layers = [m for m in network.modules() if isinstance(m, sq.nn.NeuronLayer)]
    seen = {m: 0.0 for m in layers}

    def count(layer: Any, _args: Any, out: torch.Tensor) -> None:
        seen[layer] += float((out != 0).sum())

    handles = [m.register_forward_hook(count) for m in layers]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return [int(value) for value in seen.values()]


def example(name: str, network: Any, data: Path) -> torch.Tensor:
    """An input on which every layer lives, if one of 50 draws does."""
    if "cnn" in name:
        x, y = next(iter(nmnist(data).batches("train", batch_size=100)))
        first = [int((y == digit).nonzero()[0]) for digit in range(10)]
        return x[:, first]
    if "lif" in name:
        drive = torch.from_numpy(traces(data)["exact"][:, 0]).float()
        return drive[:, None, None].expand(-1, 2, 1).contiguous()
    best: tuple[int, torch.Tensor] | None = None
    for seed in range(50):
        x = drives(np.random.default_rng(seed), network.input_shape[0])
        alive = min(spikes_by_layer(network, x), default=0)
        if best is None or alive > best[0]:
            best = (alive, x)
        if alive > 100:
            break
    assert best is not None
    return best[1]


def nmnist(data: Path) -> Any:
    return sq.data.load("n-mnist-raw", folder=data, step_ms=1, steps=300)


def journey(name: str, options: dict[str, Any], data: Path) -> str:
    """One row: what was read, and how far it went."""
    network: Any = sq.from_nir(data / "nir" / name, **options)
    x = example(name, network, data)
    neurons = sum(isinstance(m, sq.nn.NeuronLayer) for m in network.modules())
    said = ", ".join(f"{k}={v}" for k, v in options.items())
    said += " (old form)" * ("rename" in options or "rockpool" in name)
    row = f"| `{name}` | {said} | {neurons} | {len(x)} x {x.shape[1]} "
    layers = " / ".join(f"{n:,}" for n in spikes_by_layer(network, x))
    try:
        sq.quantize_(network, sq.Plan.uniform(weight_bits=8, membrane_bits=16), x, quiet=True)
        sq.calibrate(network, [x])
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
        network(x[:40]).mean().backward()
        optimizer.step()
        network.eval()
        sq.freeze(network)
        report = sq.verify(network, sq.lower(network, x[:, :2]), x[:, :4])
    except sq.SpikequantError as error:
        return f"{row}| {layers} | refused: {error} |\n"
    return (
        f"{row}| {layers} | {report.neuron_steps:,} neuron-steps, {report.spikes:,} spikes, {report.states_compared:,} "
        f"states, **{report.differences} differences** |\n"
    )


def accuracy(data: Path) -> str:
    """The N-MNIST network on the 100 raw test recordings."""
    test = nmnist(data).batches("test", batch_size=50)
    few = [next(iter(nmnist(data).batches("train", batch_size=50)))]
    options = {**FILES["nir_paper/cnn_sinabs.nir"], "readout": "sum"}
    real = sq.from_nir(data / "nir" / "nir_paper" / "cnn_sinabs.nir", **options)
    rows = [("float", "-", sq.evaluate(real, test).accuracy)]
    for weights, states in ((8, 16), (8, 8), (4, 8)):
        network = sq.from_nir(data / "nir" / "nir_paper" / "cnn_sinabs.nir", **options)
        plan = sq.Plan.uniform(weight_bits=weights, membrane_bits=states)
        sq.quantize_(network, plan, few[0][0][:, :2], quiet=True)
        sq.calibrate(network, few)
        sq.freeze(network)
        rows.append((f"W{weights}", f"U{states}", sq.evaluate(network, test).accuracy))
    text = "\n## N-MNIST: `nir_paper/cnn_sinabs.nir`\n\n"
    text += "Correct of the 100 raw test recordings at hand (`n-mnist-raw`, 300 steps of 1 ms), not trained further; "
    text += "calibrated on 50 training recordings. The wanted figures are 97 in float and 96 at W8.\n\n"
    text += "| weights | states | correct of 100 |\n|---|---|--:|\n"
    return text + "".join(f"| {w} | {s} | {100 * a:.0f} |\n" for w, s, a in rows)


def simulators(data: Path) -> str:
    """The single LIF neuron of the paper against the traces of 11 simulators."""
    found = traces(data)
    inputs = (found["exact"][:, 0] != 0).astype(float)
    text = "\n## One LIF neuron in 11 simulators (`nir_paper/lif_traces.npz`)\n\n"
    text += (
        "tau 2.5 ms, threshold 0.1, 1,000 steps of 0.1 ms, 34 input spikes. Membranes are compared away from spikes, "
    )
    text += (
        "after a common factor.\n\n| trace | read with | spikes of the trace | ours | largest difference of membranes "
    )
    text += "(thresholds) | why |\n|---|---|---|---|--:|---|\n"
    for name, simulator in SIMULATORS.items():
        compared = compare(simulator, found[name], inputs)
        said = f"{simulator.integrator}, {simulator.reset}"
        said += ", input one step late" * simulator.late_input + ", spikes one step late" * simulator.late_output
        equal = "equal" if compared.got == compared.wanted else " ".join(map(str, compared.got))
        times = " ".join(map(str, compared.wanted))
        text += f"| {name} | {said} | {times} | {equal} | {compared.difference:.1g} | {simulator.why} |\n"
    return text


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPIKEQUANT_DATA", "data")))
    data: Path = parser.parse_args().data
    torch.manual_seed(0)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text = HEADER.format(
        date=time.strftime("%Y-%m-%d"), commit=commit.stdout.strip(), torch=torch.__version__, numpy=np.__version__,
        nir=importlib.metadata.version("nir"),
    )  # fmt: skip
    text += "| file | read with | neuron layers | input, steps x samples | spikes by layer, float | integers |\n"
    text += "|---|---|--:|--:|--:|---|\n"
    for name, options in FILES.items():
        text += journey(name, options, data)
        print(text.splitlines()[-1], flush=True)
    text += accuracy(data) + simulators(data)
    (ROOT / "benchmarks" / "nir_networks.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""Streaming in compiled C against the same network stepped in plain torch, SpikingJelly and snnTorch; packed sizes.

One sample, one time step after the other, one core, all in one process and interleaved.  ``--write`` puts the table
into benchmarks/c99.md.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.readers import golden
from spikequant.readers.c99 import measure
from spikequant.readers.native import compile

STEPS = 200


class HandLIF(nn.Module):
    """Plain torch: ``v = 0.9 v + x``; fires at 1; reset to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        v = 0.9 * self.v + x
        s = (v >= 1.0).to(x.dtype)
        self.v = v * (1.0 - s)
        return s


def layers(kind: str) -> list[nn.Module]:
    """Weighted layers of a network; a neuron follows each."""
    if kind == "mlp":
        return [nn.Linear(784, 512), nn.Linear(512, 512), nn.Linear(512, 10)]
    if kind == "small mlp":
        return [nn.Linear(64, 128), nn.Linear(128, 10)]
    return [
        nn.Conv2d(2, 16, 5, padding=2, stride=2, bias=False),
        nn.Conv2d(16, 32, 3, padding=1, stride=2, bias=False),
        nn.Sequential(nn.Flatten(), nn.Linear(32 * 9 * 9, 10)),
    ]


class Net(nn.Module):
    """Weights and neurons in turn, one step per call."""

    def __init__(self, weighted: list[nn.Module], neuron: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.weighted, self.neurons = nn.ModuleList(weighted), nn.ModuleList(neuron() for _ in weighted)

    def forward(self, x: Tensor) -> Tensor:
        for layer, neuron in zip(self.weighted, self.neurons, strict=True):
            x = neuron(layer(x))
            x = x[0] if isinstance(x, tuple) else x
        return x


class Loop(nn.Module):
    """The same over time, as spikequant captures it."""

    def __init__(self, weighted: list[nn.Module]) -> None:
        super().__init__()
        self.step = Net(weighted, lambda: sq.nn.LIF(leak=0.9, step_mode="s"))

    def forward(self, x: Tensor) -> Tensor:
        count = 0
        for t in range(x.shape[0]):
            count = count + self.step(x[t])
        return count


def peers(weighted: list[nn.Module]) -> dict[str, Net]:
    """The network in other libraries, with the same weights."""
    found = {"plain torch": Net(weighted, HandLIF)}
    try:
        import snntorch

        found["snnTorch"] = Net(weighted, lambda: snntorch.Leaky(beta=0.9, reset_mechanism="zero", init_hidden=True))
    except ImportError:
        print("snnTorch is not installed")
    try:
        from spikingjelly.activation_based import neuron

        tau = 10.0
        found["SpikingJelly"] = Net(weighted, lambda: neuron.LIFNode(tau=tau, decay_input=False, step_mode="s"))
    except ImportError:
        print("SpikingJelly is not installed")
    return found


def excite_(weighted: list[nn.Module]) -> None:
    """Random weights under which every layer fires now and then."""
    with torch.no_grad():
        for layer in weighted:
            for module in layer.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    fan_in = module.weight[0].numel()
                    module.weight.normal_(0.6 / fan_in, 1.3 / fan_in**0.5)
                    if module.bias is not None:
                        module.bias.uniform_(-0.02, 0.05)


def integers(weighted: list[nn.Module], x: Tensor, bits: int) -> sq.IntNet:
    """The integer network."""
    model = Loop(weighted).eval()
    sq.quantize_(model, sq.Plan.uniform(weight_bits=bits, membrane_bits=8), x, quiet=True)
    sq.freeze(model)
    return sq.lower(model, x)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def bandwidth() -> float:
    """Bytes per second that a copy of cached memory moves, read plus write."""
    source = np.zeros(64 * 1024, dtype=np.uint8)
    target = np.zeros_like(source)
    best = min(seconds(lambda: [np.copyto(target, source) for _ in range(200)]) for _ in range(20))
    return 2 * source.size * 200 / best


def moved_bytes(net: sq.IntNet, state_bytes: int, codes: np.ndarray) -> float:
    """Bytes a step must move: states and spikes read and written, the rows of codes of active inputs read."""
    run, rows = golden.run(net, codes), 0.0
    for synapse in net.synapses:
        origin = synapse.inputs[0].source
        while origin not in run.outputs and origin != net.input.name:
            origin = net.node(origin).inputs[0].source
        train = codes if origin == net.input.name else run.outputs[origin]
        active = float((train != 0).reshape(len(codes), -1).sum(1).mean())
        is_conv = synapse.product.kind == "conv"
        inputs = net.node(origin).shape[0] if is_conv else train[0].size
        reached = synapse.product.codes.size / inputs / (np.prod(synapse.product.stride) if is_conv else 1)
        rows += active * reached * synapse.bits / 8
    return 2 * state_bytes + rows


def bench(kind: str, bits: int, rounds: int) -> str:
    torch.manual_seed(0)
    weighted = layers(kind)
    excite_(weighted)
    shape = (2, 34, 34) if kind == "conv" else (weighted[0].in_features,)
    x = (torch.rand(STEPS, 1, *shape) < (0.03 if kind == "conv" else 0.1)).float()
    net = integers(copy.deepcopy(weighted), x[:20], bits)
    compiled, codes = compile(net), golden.encode(net, x.numpy())
    data = np.ascontiguousarray(codes, dtype=compiled.program.input_type.numpy)
    assert np.array_equal(compiled.run(data, encoded=True), golden.run(net, codes).scores)
    others, run = peers(weighted), golden.run(net, codes)
    rate = np.mean([float((o > 0).mean()) for o in run.outputs.values()])
    times: dict[str, list[float]] = {name: [] for name in ("C", "C from Python", *others)}
    for _ in range(rounds):
        times["C"].append(seconds(lambda: compiled.run(data, encoded=True)) / STEPS)
        times["C from Python"].append(
            seconds(lambda: [compiled.step(data[t], encoded=True) for t in range(STEPS)]) / STEPS
        )
        for name, model in others.items():
            with torch.no_grad():
                times[name].append(seconds(lambda m=model: [m(x[t]) for t in range(STEPS)]) / STEPS)
    best = {name: min(values) for name, values in times.items()}  # other work on the machine only adds
    sizes = measure(compiled.program)
    least = moved_bytes(net, sum(state for _, _, state in sizes.layers.values()), codes) / bandwidth()
    cells = [f"{kind}, W{bits}/U8", f"{rate:.1%}", f"{best['C'] * 1e6:.2f}", f"{best['C from Python'] * 1e6:.1f}"]
    for name in PEERS:
        shown = f"{best[name] * 1e6:.0f} ({best[name] / best['C']:.0f} x)" if name in best else "not installed"
        cells.append(shown)
    cells += [
        f"{best['C'] / least:.1f}",
        f"{sizes.weights:,}",
        f"{sizes.weights * 8 / sizes.ideal_weight_bits - 1:+.2%}",
    ]
    return "| " + " | ".join([*cells, f"{sizes.state:,}"]) + " |"


PEERS = ("plain torch", "snnTorch", "SpikingJelly")
HEAD = ("network", "mean rate", "C, us", "C called from Python, us", *(f"{p}, us" for p in PEERS), "x bytes")
HEAD += ("weights, B", "over ideal", "state, B")
CASES = (("small mlp", 8), ("mlp", 4), ("mlp", 8), ("conv", 4), ("conv", 8))
PAGE = Path(__file__).with_suffix(".md")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--write", action="store_true", help="replace the table of c99.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD)]
    rows += [bench(kind, bits, options.rounds) for kind, bits in CASES]
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=False).stdout.splitlines()[0]
    about = f"Machine: {platform.machine()}, {os.cpu_count()} cores, one used, {compiler}, torch {torch.__version__}."
    text = "\n".join([*rows, "", about])
    print(text)
    if options.write:
        before, mark, rest = PAGE.read_text(encoding="utf-8").partition("<!-- table -->\n")
        after = rest.partition("<!-- end -->\n")[2]
        PAGE.write_text(f"{before}{mark}\n{text}\n\n<!-- end -->\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

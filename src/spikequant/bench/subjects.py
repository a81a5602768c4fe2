"""Who takes part: every row of a workload by name, built when it is its turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spikequant.bench import ours
from spikequant.bench.libraries import LIBRARIES
from spikequant.bench.parts import Parts, Timed
from spikequant.bench.workloads import Workload
from spikequant.nn.layer import NeuronLayer

FLOAT, WEIGHTS, BOTH = "float", "weights", "weights and membrane"


@dataclass(frozen=True)
class Subject:
    """One network in one library.

    Attributes:
        kind: what is quantized: ``"float"``, ``"weights"`` or ``"weights and membrane"``.
        half: whether it runs under autocast to bfloat16.
        is_ours: whether it is spikequant's.
        make: the network for the weights and the input of the workload.
    """

    name: str
    kind: str
    half: bool
    is_ours: bool
    make: Callable[[list[Tensor], Tensor], Timed]

    def context(self) -> contextlib.AbstractContextManager[object]:
        """Autocast where the row has it."""
        return torch.autocast("cpu", torch.bfloat16) if self.half else contextlib.nullcontext()


def subjects(workload: Workload, bits: int) -> tuple[list[Subject], list[str]]:
    """All rows of a workload, and the libraries that are not installed."""
    found, missing = list(_own(workload, bits)), []
    for package, rows in LIBRARIES.items():
        try:
            for name, kind, parts in rows(bits):
                if not workload.plain and (parts.gain != 1.0 or package not in ("spikingjelly", "snntorch")):
                    continue  # a gain would have to go through the batch norms
                peer = Subject(name, kind, False, False, _maker(workload, parts))
                found.append(peer)
                if kind != BOTH:
                    found.append(replace(peer, name=f"{name}, bf16 autocast", half=True))
        except ImportError:
            missing.append(package)
    return found, missing


def _own(workload: Workload, bits: int) -> Iterator[Subject]:
    yield Subject("spikequant, float", FLOAT, False, True, _maker(workload, ours.float_parts()))
    plain = _maker(workload, ours.float_parts())

    def quantized(weights: list[Tensor], x: Tensor) -> Timed:
        return ours.quantized(plain(weights, x), x, bits, bits)

    yield Subject(f"spikequant, W{bits}/U{bits}", BOTH, False, True, quantized)


def _maker(workload: Workload, parts: Parts) -> Callable[[list[Tensor], Tensor], Timed]:
    def make(weights: list[Tensor], x: Tensor) -> Timed:
        born: list[nn.Module] = []

        def neuron() -> nn.Module:
            born.append(parts.neuron())
            return born[-1]

        net = workload.network(replace(parts, neuron=neuron), weights)
        net.born = born
        return net

    return make


def mean_rates(net: Timed, x: Tensor) -> list[float]:
    """Firing rate of every layer of neurons, in the order in which they run."""
    seen: dict[nn.Module, list[float]] = {}

    def watch(module: nn.Module, _: object, out: object) -> None:
        spikes = out[0] if isinstance(out, tuple) else out
        assert isinstance(spikes, Tensor)
        seen.setdefault(module, []).append(float(spikes.float().mean()))

    own = [m for m in net.modules() if isinstance(m, NeuronLayer)]
    hooks = [m.register_forward_hook(watch) for m in own or net.born]
    was_training = net.training
    net.eval()  # batch norms by their statistics, in every row
    with torch.no_grad():
        net(x)
    net.train(was_training)
    for hook in hooks:
        hook.remove()
    return [sum(found) / len(found) for found in seen.values()]

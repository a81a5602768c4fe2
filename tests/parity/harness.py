"""Parity of readings: random neurons of a library against what we read, T = 50, batch 8, spike by spike.

A library takes part with one `Family` per neuron: a name and a function that draws a
module over the legal range of its parameters, and the shape of its input.  A family file
lists them in `FAMILIES`; `tests/parity/test_parity.py` and `benchmarks/parity.py` run them all.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.frontends.check import check_layer
from spikequant.frontends.library import Library, Reading

STEPS, BATCH = 50, 8
Draw = Callable[[np.random.Generator], tuple[nn.Module, tuple[int, ...]]]


@dataclass(frozen=True)
class Family:
    """One neuron class of a library."""

    library: Library
    name: str
    draw: Draw


@dataclass
class Tally:
    """What a sweep compared, and how alive it was."""

    family: Family
    grades: Counter = field(default_factory=Counter)
    neuron_steps: int = 0
    spikes: int = 0
    differing: int = 0
    by_rounding: int = 0
    margin: float = 0.0
    alive: int = 0
    reasons: Counter = field(default_factory=Counter)

    @property
    def configurations(self) -> int:
        return sum(self.grades.values())


def drive(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Inputs ``[T, N, *shape]``: noise of random size around a random mean, with pauses."""
    scale, mean = rng.uniform(0.1, 1.5), rng.uniform(-0.2, 0.8)
    x = rng.normal(mean, scale, (STEPS, BATCH, *shape)) * (rng.random((STEPS, 1, *([1] * len(shape)))) > 0.1)
    return torch.tensor(x, dtype=torch.float32)


def drawn(family: Family, seed: int) -> tuple[nn.Module, Reading, Tensor]:
    """A random module of a family, its reading, and an input."""
    rng = np.random.default_rng([seed, *family.name.encode()])
    torch.manual_seed(seed)
    module, shape = family.draw(rng)
    reading = family.library.read("layer", module)
    assert reading is not None
    return module.eval(), reading, drive(rng, shape)


def sweep(family: Family, seeds: range) -> Tally:
    """Compare every configuration of `seeds`."""
    tally = Tally(family)
    for seed in seeds:
        module, reading, x = drawn(family, seed)
        found = check_layer("layer", module, reading, x)
        tally.grades[found.grade] += 1
        tally.neuron_steps += found.neuron_steps
        tally.spikes += found.spikes
        tally.differing += found.differing
        tally.alive += 0.01 <= found.spikes / found.neuron_steps <= 0.99
        if found.differing:
            reason = "float rounding" if "float rounding" in found.difference else found.difference.split("; ", 1)[-1]
            tally.reasons[reason] += 1
            if reason == "float rounding":
                tally.by_rounding += found.differing
                tally.margin = max(tally.margin, found.margin)
    return tally


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a module under the names of its checkpoints, which a reading keeps."""
    return {n: p for n, p in module.state_dict(keep_vars=True).items() if isinstance(p, nn.Parameter)}


def gradients(family: Family, module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Gradients of a weighted sum of the spikes, by input and parameters."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    spikes = family.library.run(module, x)
    weights = torch.linspace(-1, 1, spikes.numel()).reshape(spikes.shape)
    (spikes * weights).sum().backward()
    found = {name: p.grad for name, p in parameters(module).items() if p.grad is not None}
    return {name: g.clone() for name, g in {"input": x.grad, **found}.items() if g is not None}


def families() -> Iterator[Family]:
    """Those of every library that is installed."""
    for file in sorted(Path(__file__).parent.glob("*_families.py")):
        package = file.name.removesuffix("_families.py")
        if importlib.util.find_spec(package) is not None:
            yield from importlib.import_module(f"tests.parity.{file.stem}").FAMILIES

"""What a plan really takes: a copy of the network is quantized with it, and every stored number counted.

Operations and firing rates are those of the real network, at the bits of the quantized one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.analyse.inputs import few_samples
from spikequant.analyse.memory import memory_rows
from spikequant.analyse.probe import Observation, observe
from spikequant.analyse.work import Work, work_of
from spikequant.frontends.registry import read_
from spikequant.measure import MemoryRow, flash_bits, ram_bits
from spikequant.nn import SYNAPSES, QuantizedNeuron
from spikequant.nn.copying import copied
from spikequant.plan import Plan
from spikequant.quantize import quantize_

LOADS = ("flash", "ram", "memory", "synop_bits", "energy")
"""What a budget may limit: `Stored` tells each."""


@dataclass(frozen=True)
class Stored:
    """What a network takes: memory in bits, and what a sample costs.

    Attributes:
        synop_bits: synaptic operations of a sample times the bits of their weight.
        energy: of a sample, operations and traffic, in pJ (the third line of `energy_pj`).

    >>> Stored(flash=300, ram=20, synop_bits=0.0, energy=0.0).memory
    320
    """

    flash: int
    ram: int
    synop_bits: float
    energy: float

    @property
    def memory(self) -> int:
        """Flash and RAM."""
        return self.flash + self.ram

    def of(self, load: str) -> float:
        """The load of that name, one of `LOADS`."""
        return float(getattr(self, load))


def stored_of(rows: Sequence[MemoryRow], work: Work) -> Stored:
    """The sums of `rows`, and what `work` costs with their bits."""
    return Stored(
        flash=flash_bits(rows),
        ram=ram_bits(rows),
        synop_bits=work.weight_bits_read(rows),
        energy=work.energy(rows).integer_ops_and_traffic,
    )


class Recount:
    """Counts what a plan takes as `compare` does, on a copy of the network as it was when its traces were taken.

    Attributes:
        work: operations of a sample.
        known: what searches have counted, kept for the next one.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, seen: Observation) -> None:
        self._model = copied(model)
        self._x = few_samples(x, len(y))
        axis = 0 if len(x) == len(y) else 1
        self._y = y[torch.arange(self._x.shape[axis], device=y.device) % len(y)]
        self._input_bits, self._steps = seen.input_bits, seen.steps
        self.work = work_of(seen)
        self.known: dict[str, dict[Any, Any]] = {}

    @torch.no_grad()
    def dressed(self, plan: Plan) -> nn.Module:
        """A quantized copy.

        Raises:
            SpikequantError: the plan does not apply, as `quantize_` says it.
        """
        model = copy.deepcopy(self._model)
        quantize_(model, plan, self._x, quiet=True)
        return model

    def rows(self, plan: Plan) -> tuple[MemoryRow, ...]:
        """Every stored number of the network under `plan`.

        Raises:
            SpikequantError: the plan does not apply, as `quantize_` says it.
        """
        return self._rows(self.dressed(plan))

    def look(self, plan: Plan) -> tuple[tuple[MemoryRow, ...], list[frozenset[str]]]:
        """The same, and which layers hang together: paths of each layer of neurons and the synapses in front of it."""
        model = self.dressed(plan)
        paths = {id(module): path for path, module in model.named_modules()}
        neurons = [module for module in model.modules() if isinstance(module, QuantizedNeuron)]
        groups = [frozenset(paths[id(m)] for m in (one, *(b.synapse for b in one.branches))) for one in neurons]
        return self._rows(model), groups

    def weights(self) -> dict[str, Tensor]:
        """Real weights by the path of their layer."""
        return {path: m.weight.detach() for path, m in self._model.named_modules() if isinstance(m, SYNAPSES)}

    @torch.no_grad()
    def _rows(self, model: nn.Module) -> tuple[MemoryRow, ...]:
        seen = observe(model, [(self._x, self._y)], operations=False)
        readings = read_(model)  # neurons of other libraries that the plan leaves real
        try:
            return memory_rows(model, seen.shapes, graph=seen.graph, input_bits=self._input_bits, steps=self._steps)
        finally:
            readings.undo()

    def __call__(self, plan: Plan) -> Stored:
        """Their sums."""
        return stored_of(self.rows(plan), self.work)

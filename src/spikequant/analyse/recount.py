"""What a plan really takes: a copy of the network is quantized with it, and every stored number counted."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikequant.analyse.inputs import few_samples
from spikequant.analyse.memory import memory_rows
from spikequant.analyse.probe import Observation, observe
from spikequant.frontends.registry import read_
from spikequant.measure import MemoryRow, flash_bits, ram_bits
from spikequant.nn.copying import copied
from spikequant.plan import Plan
from spikequant.quantize import quantize_


@dataclass(frozen=True)
class Stored:
    """Memory of a network in bits.

    >>> Stored(flash=300, ram=20).memory
    320
    """

    flash: int
    ram: int

    @property
    def memory(self) -> int:
        """Flash and RAM."""
        return self.flash + self.ram

    def of(self, load: str) -> int | None:
        """The load of that name; None for what is no memory."""
        return {"flash": self.flash, "ram": self.ram, "memory": self.memory}.get(load)


class Recount:
    """Counts a plan's memory as `compare` does, on a copy of the real network as it was when its traces were taken."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, seen: Observation) -> None:
        self._model = copied(model)
        self._x = few_samples(x, len(y))
        axis = 0 if len(x) == len(y) else 1
        self._y = y[torch.arange(self._x.shape[axis], device=y.device) % len(y)]
        self._input_bits, self._steps = seen.input_bits, seen.steps

    @torch.no_grad()
    def rows(self, plan: Plan) -> tuple[MemoryRow, ...]:
        """Every stored number of the network under `plan`.

        Raises:
            SpikequantError: the plan does not apply, as `quantize_` says it.
        """
        model = copy.deepcopy(self._model)
        quantize_(model, plan, self._x, quiet=True)
        seen = observe(model, [(self._x, self._y)], operations=False)
        readings = read_(model)  # neurons of other libraries that the plan leaves real
        try:
            return memory_rows(model, seen.shapes, graph=seen.graph, input_bits=self._input_bits, steps=self._steps)
        finally:
            readings.undo()

    def __call__(self, plan: Plan) -> Stored:
        """Their sums."""
        rows = self.rows(plan)
        return Stored(flash_bits(rows), ram_bits(rows))

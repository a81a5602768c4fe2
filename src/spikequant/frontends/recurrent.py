"""A layer with its own recurrent weight: one module to its users, two layers to the law."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.cell import CellReading
from spikequant.nn import NeuronLayer


class RecurrentReading(CellReading):
    """``cell(x + recurrent(spikes of the step before))``.

    The neurons are the submodule `cell` and the weights the submodule `recurrent`.

    Attributes:
        spikes: what left the layer in the step before; None at rest.
    """

    def __init__(self, cell: NeuronLayer, recurrent: nn.Module) -> None:
        super().__init__(cell)
        self.recurrent = recurrent
        self.spikes: Tensor | None = None

    def step(self, x: Tensor, previous: Tensor | None, **states: Tensor | None) -> Any:
        """One step of the cell on the input and on what the layer fired before; the cell's answer."""
        if previous is None or previous.shape != x.shape:
            previous = torch.zeros_like(x, dtype=next(self.recurrent.parameters()).dtype)  # x may carry wide integers
        answer = self.cell(x + self.recurrent(previous), **states)
        self.spikes = answer[0] if isinstance(answer, tuple) else answer
        return answer

    def put_to_rest(self) -> None:
        """Forget states and spikes."""
        self.spikes = None
        super().put_to_rest()

    def __getstate__(self) -> dict[str, Any]:
        """Copies start from rest."""
        return {**self.__dict__, "spikes": None}

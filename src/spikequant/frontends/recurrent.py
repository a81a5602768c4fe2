"""A layer with its own recurrent weight: one module to its users, two layers to the law."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikequant.nn import NeuronLayer

INSIDE = "cell."


class RecurrentReading(nn.Module):
    """``cell(x + recurrent(spikes of the step before))``.

    The neurons are the submodule `cell`, which `quantize_` exchanges, and the weights the
    submodule `recurrent`.  In a `state_dict` the names of the cell stand without ``cell.``,
    as they stood in the layer that was read.

    Attributes:
        spikes: what left the layer in the step before; None at rest.
    """

    cell: NeuronLayer

    def __init__(self, cell: NeuronLayer, recurrent: nn.Module) -> None:
        super().__init__()
        self.cell, self.recurrent = cell, recurrent
        self.spikes: Tensor | None = None
        self.register_state_dict_post_hook(_outer_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_inner_names)  # type: ignore[no-untyped-call]

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
        self.cell.reset()

    def __getstate__(self) -> dict[str, Any]:
        """Copies start from rest."""
        return {**self.__dict__, "spikes": None}


def _outer_names(module: nn.Module, record: dict[str, Any], prefix: str, _metadata: Any) -> None:
    start = f"{prefix}{INSIDE}"
    for name in [name for name in record if name.startswith(start)]:
        record[prefix + name[len(start) :]] = record.pop(name)


def _inner_names(module: nn.Module, record: dict[str, Any], prefix: str, *_rest: Any) -> None:
    assert isinstance(module, RecurrentReading)
    names = [*module.cell.state_dict(), "_extra_state"]
    for name in names:
        if f"{prefix}{name}" in record:
            record[f"{prefix}{INSIDE}{name}"] = record.pop(f"{prefix}{name}")

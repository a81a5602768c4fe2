"""The network that a NIR graph becomes: its layers by name, one step after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from spikequant.frontends.nir.dynamics import Choices
from spikequant.law.errors import DataError, Unsupported
from spikequant.nn.reset import reset_states

Readout = Literal["train", "sum", "mean", "last"]


@dataclass(frozen=True, kw_only=True)
class NirReading:
    """How a graph was read.

    Attributes:
        choices: what the graph does not say, as it was given or found in its metadata.
        notes: everything a user should know: defaults, folded nodes, edges that go back, what was left out.
    """

    choices: Choices
    notes: tuple[str, ...]

    def __str__(self) -> str:
        said = {k: v for k, v in vars(self.choices).items() if v is not None}
        head = "read with " + ", ".join(f"{name} = {value}" for name, value in said.items())
        return "\n".join([head, *(f"- {note}" for note in self.notes)])


@dataclass(frozen=True)
class Step:
    """One node in the order of a step: its layer, what it reads (name, delayed), and the layer that adds that up."""

    name: str
    layer: str | None
    reads: tuple[tuple[str, bool], ...]
    joins: str | None


class Sum(nn.Module):
    """The sum of several values."""

    def forward(self, *values: Tensor) -> Tensor:
        """All of them added."""
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total


class NirNetwork(nn.Module):
    """``[T, N, *shape] -> [T, N, *out]`` (or a reading of it over time), every call from rest.

    With `still_steps` it takes ``[N, *shape]`` and shows it at each of so many steps.  For a flat Input the axes of a
    sample may also be those of an image.

    Layers are submodules under the names of the nodes; a dot in a path is an underscore.

    Attributes:
        reading: how the graph was read.
        input_shape: of one sample in one step.
    """

    def __init__(
        self,
        layers: dict[str, nn.Module],
        steps: tuple[Step, ...],
        shapes: dict[str, tuple[int, ...]],
        ends: tuple[str, str],
        reading: NirReading,
        readout: Readout,
        still_steps: int | None = None,
    ) -> None:
        super().__init__()
        if readout not in get_args(Readout):
            raise Unsupported(f"readout={readout!r}; expected one of {', '.join(get_args(Readout))}")
        for name, layer in layers.items():
            self.add_module(name, layer)
        if still_steps is not None and (isinstance(still_steps, bool) or not 1 <= still_steps <= 2**20):
            raise Unsupported(f"steps={still_steps!r}; expected 1 to {2**20} steps for which an input stands still")
        self.reading, self.readout, self.still_steps = reading, readout, still_steps
        self.input_shape = shapes[ends[0]]
        self._steps, self._shapes, self._ends = steps, shapes, ends
        self._kept = tuple(dict.fromkeys(name for step in steps for name, delayed in step.reads if delayed))

    def forward(self, x: Tensor) -> Tensor:
        """All steps of an input."""
        lead = 2 if self.still_steps is None else 1
        if len(self.input_shape) == 1 and x.dim() > lead + 1:
            x = x.flatten(lead)
        if tuple(x.shape[lead:]) != self.input_shape or x.dim() != len(self.input_shape) + lead:
            wanted = ", ".join(map(str, self.input_shape))
            raise DataError(f"the network takes [{'T, ' * (lead - 1)}N, {wanted}], got {tuple(x.shape)}")
        reset_states(self)
        before = {name: x.new_zeros(x.shape[lead - 1], *self._shapes[name]) for name in self._kept}
        outputs = []
        for step_input in x if self.still_steps is None else [x] * self.still_steps:
            now = self.step(step_input, before)
            outputs.append(now[self._ends[1]])
            before = {name: now[name] for name in self._kept}
        train = torch.stack(outputs)
        if self.readout == "train":
            return train
        if self.readout == "last":
            return train[-1]
        return train.sum(0) if self.readout == "sum" else train.mean(0)

    def step(self, x: Tensor, before: dict[str, Tensor]) -> dict[str, Tensor]:
        """What every node gives in one step; `before` holds what some gave in the step before."""
        now = {self._ends[0]: x}
        for step in self._steps:
            values = [before[name] if delayed else now[name] for name, delayed in step.reads]
            value = values[0] if step.joins is None else self.get_submodule(step.joins)(*values)
            now[step.name] = value if step.layer is None else self.get_submodule(step.layer)(value)
        return now

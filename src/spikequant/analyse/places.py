"""The layers and roles whose curvature is taken, and the perturbation that stands for a membrane."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikequant.analyse.by_sample import Tap
from spikequant.nn import NeuronLayer
from spikequant.nn.neuron import over_features

Role = Literal["weight", "membrane", "threshold"]
MOST_SCALE = 100.0


@dataclass(eq=False)
class Place:
    """One layer in one role and the tensors of the graph that stand for it.

    Attributes:
        tensors: leaves of the graph of the last batch.
        tap: for a weight whose samples are probed apart.
        count: numbers in it, where the leaves are others.
        scale: length of its probes, beside signs.
    """

    layer: str
    role: Role
    tensors: list[Tensor] = field(default_factory=list)
    tap: Tap | None = None
    count: int = 0
    scale: float = 1.0

    @property
    def numel(self) -> int:
        """Numbers in it."""
        return self.count or sum(t.numel() for t in self.tensors)


def perturbed(place: Place, layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The current plus a perturbation of zeros that the graph goes through, in units of the membrane."""
    assert isinstance(layer, NeuronLayer)
    moved = torch.zeros_like(given[0], memory_format=torch.contiguous_format, requires_grad=True)
    place.tensors.append(moved)
    if "gain" not in layer.sources:
        return (given[0] + moved, *given[1:])
    features = moved.dim() - (1 if layer.step_mode == "s" else 2)
    gain = over_features(layer.real_value("gain").detach(), features).to(moved)
    return (given[0] + moved / gain, *given[1:])

"""The layers and roles whose curvature is taken, and the perturbation that stands for a membrane."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikequant.analyse.by_sample import Tap
from spikequant.nn import NeuronLayer, QuantizedNeuron
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
    """The input plus a perturbation of zeros that the graph goes through, in units of the membrane.

    Behind a synaptic current ``i_t = k i_t-1 + x_t`` the membrane alone is moved by ``e`` with ``x_t + e_t - k e_t-1``.
    """
    assert isinstance(layer, NeuronLayer)
    moved = torch.zeros_like(given[0], memory_format=torch.contiguous_format, requires_grad=True)
    place.tensors.append(moved)
    features = moved.dim() - (1 if layer.step_mode == "s" else 2)
    step, kept = moved, kept_current(layer)
    if kept is not None:
        if layer.step_mode == "s":
            before = place.tensors[-2] if len(place.tensors) > 1 else torch.zeros_like(moved)
        else:
            before = torch.cat([torch.zeros_like(moved[:1]), moved[:-1]])
        step = moved - over_features(kept, features).to(moved) * before
    if "gain" not in layer.sources:
        return (given[0] + step, *given[1:])
    gain = over_features(layer.real_value("gain").detach(), features).to(moved)
    return (given[0] + step / gain, *given[1:])


def kept_current(layer: NeuronLayer) -> Tensor | None:
    """The share of its synaptic current that a neuron keeps in a step; None without one, or where none is known.

    Known are real neurons that add the current of this step to the membrane and let it leak by a factor.
    """
    spec = layer.neuron_spec
    if not spec.has_current or isinstance(layer, QuantizedNeuron) or spec.leak_i is None:
        return None
    if spec.order.index("add_current") > spec.order.index("integrate") or spec.leak_i.form not in ("multiply", "shift"):
        return None
    value = layer.real_value("leak_i").detach()
    return value if spec.leak_i.form == "multiply" else 1.0 - torch.exp2(-value)

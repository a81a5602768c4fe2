"""Freezing of scales: from some epoch on the grid stands still, and the weights settle on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.nn import Synapse
from spikequant.training.routines import Routine
from spikequant.training.step import check_number


@final
class FrozenScales(Routine):
    """From the share `after` of the epochs on no weight scale moves: learned ones get no gradient, dynamic ones stay.

    Source: the freezing of quantization parameters in Nagel et al., *Overcoming oscillations in quantization-aware
    training*, ICML 2022, and Bhalgat et al., *LSQ+*, 2020 (there of batch norm's statistics).

    Args:
        after: share of the epochs that pass before it, from 0 to 1 (which freezes nothing).

    Raises:
        DataError: `after` is no share, or the model has no scale that moves.
    """

    def __init__(self, after: float = 0.5) -> None:
        self.after = check_number("FrozenScales", "after", after, low=0.0, high=1.0)
        self.frozen = False
        self._learned: list[nn.Parameter] = []

    def begin(self, model: nn.Module, epochs: int) -> None:
        """Look for scales that move."""
        self.frozen, self._learned = False, []
        if not any(m.quantizer.scale_mode in ("learned", "dynamic") for m in _synapses(model)):
            raise DataError(
                "FrozenScales: no weight scale of the model moves; use a quantizer with learned (lsq) or dynamic scales"
            )

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Freeze when it is time."""
        if not self.frozen and epoch >= self.after * epochs:
            self._freeze(model)

    def _freeze(self, model: nn.Module) -> None:
        self.frozen = True
        for synapse in _synapses(model):
            if synapse.quantizer.scale_mode == "dynamic":
                synapse.scale()  # the last one that follows the weights
                synapse.quantizer = replace(synapse.quantizer, scale_mode="fixed")  # type: ignore[type-var]
                synapse.train(synapse.training)
            elif isinstance(synapse.weight_scale, nn.Parameter) and synapse.weight_scale.requires_grad:
                synapse.weight_scale.requires_grad_(False)
                synapse.weight_scale.grad = None
                self._learned.append(synapse.weight_scale)

    def end(self, model: nn.Module) -> None:
        """Learned scales may learn again in another training; dynamic ones stay where they are."""
        for scale in self._learned:
            scale.requires_grad_(True)
        self._learned = []

    def state(self) -> dict[str, Tensor]:
        """Whether it has happened."""
        return {"frozen": torch.tensor(int(self.frozen))}

    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Frozen again, if it was; the scales came with the weights."""
        if int(state.get("frozen", torch.tensor(0))) and not self.frozen:
            kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
            self._freeze(model)
            model.load_state_dict(kept)


def _synapses(model: nn.Module) -> list[Synapse]:
    return [m for m in model.modules() if isinstance(m, Synapse) and not m.is_frozen]


__all__ = ["FrozenScales"]

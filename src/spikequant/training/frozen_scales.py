"""Freezing of scales: from some epoch on the grid stands still, and the weights settle on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.nn import Synapse
from spikequant.quantizers import Quantizer
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
        self._moves = True
        self._learned: list[nn.Parameter] = []
        self._dynamic: list[tuple[Synapse, Quantizer]] = []

    def begin(self, model: nn.Module, epochs: int) -> None:
        """Look for scales that move."""
        self.frozen, self._learned, self._dynamic = False, [], []
        self._moves = any(m.quantizer.scale_mode in ("learned", "dynamic") for m in _synapses(model))

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """Freeze when it is time; a model that goes on frozen has nothing left that moves."""
        if not (self.frozen or self._moves):
            raise DataError(
                "FrozenScales: no weight scale of the model moves; use a quantizer with learned (lsq) or dynamic scales"
            )
        if not self.frozen and epoch >= self.after * epochs:
            self._freeze(model)

    def _freeze(self, model: nn.Module) -> None:
        self.frozen = True
        for synapse in _synapses(model):
            if synapse.quantizer.scale_mode == "dynamic":
                synapse.scale()  # the last one that follows the weights
                self._dynamic.append((synapse, synapse.quantizer))
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
        """Frozen again, or not yet, as it was; the scales came with the weights."""
        frozen = bool(state.get("frozen", torch.tensor(0)))
        if self.frozen and not frozen:
            for synapse, quantizer in self._dynamic:
                synapse.quantizer = quantizer
                synapse.train(synapse.training)
            self.end(model)
            self.frozen, self._dynamic = False, []
        elif frozen and not self.frozen:
            kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
            self._freeze(model)
            model.load_state_dict(kept)


def _synapses(model: nn.Module) -> list[Synapse]:
    return [m for m in model.modules() if isinstance(m, Synapse) and not m.is_frozen]


__all__ = ["FrozenScales"]

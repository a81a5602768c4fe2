"""Gradual bits: training begins with more bits than the plan gives, and comes down to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError, PlanError
from spikequant.nn import Synapse
from spikequant.quantizers import Quantizer
from spikequant.quantizers.stateful import is_stateful
from spikequant.training.routines import Routine
from spikequant.training.step import check_number


@final
class GradualBits(Routine):
    """Weights begin with `start` bits and lose one after the other in the first `over` of the epochs.

    ``bits(e) = b + ceil((start - b) (1 - e / E))``, ``E = max(1, floor(over * epochs))``, ``b`` the plan's bits. When a
    layer's bits change, its quantizer fits the scale anew to the weights.  Layers with `start` bits or more, and those
    whose quantizer has one width only (ternary, binary) or keeps a state of its own, stay as they are.
    Source: the progressive quantization of Zhuang et al., *Towards effective low-bitwidth CNNs*, CVPR 2018.

    Args:
        start: bits in the first epoch, 2 to 16.
        over: share of the epochs in which they fall, from 0 to less than 1.

    Raises:
        DataError: a number out of its range, no layer that could begin with more bits, or fewer than two epochs.
    """

    def __init__(self, start: int = 8, *, over: float = 0.5) -> None:
        if not isinstance(start, int) or not 2 <= start <= 16:
            raise DataError(f"GradualBits: start = {start!r}; expected whole bits, 2 to 16")
        self.start = start
        self.over = check_number("GradualBits", "over", over, low=0.0, high=0.999)
        self._planned: dict[str, Quantizer] = {}
        self._bits: dict[str, int] = {}

    def begin(self, model: nn.Module, epochs: int) -> None:
        """Note the plan's bits of every layer."""
        if epochs < 2:
            raise DataError(f"GradualBits: bits cannot fall in {epochs} epoch; expected 2 epochs or more")
        self._planned = {path: s.quantizer for path, s in _synapses(model).items() if _wider(s.quantizer, self.start)}
        if not self._planned:
            raise DataError(
                f"GradualBits: no weighted layer has fewer than {self.start} bits that can change; "
                "quantize the model to fewer bits first, or start higher"
            )
        self._bits = {path: quantizer.bits for path, quantizer in self._planned.items()}

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:
        """The bits of this epoch."""
        left = max(0.0, 1 - epoch / max(1, math.floor(self.over * epochs)))
        for path, planned in self._planned.items():
            bits = planned.bits + math.ceil((self.start - planned.bits) * left)
            if bits != self._bits[path]:
                self._change(model, path, bits)
                _renew_scale(_synapses(model)[path])
        model.train(model.training)  # widths are proven anew

    def _change(self, model: nn.Module, path: str, bits: int) -> None:
        synapse, planned = _synapses(model)[path], self._planned[path]
        wider = _wider(planned, bits) if bits != planned.bits else planned
        assert wider is not None
        synapse.quantizer, self._bits[path] = wider, bits
        synapse.train(synapse.training)  # codes are made anew

    def end(self, model: nn.Module) -> None:
        """Whatever happened, the model has the plan's bits again."""
        for path, planned in self._planned.items():
            if self._bits[path] != planned.bits:
                self._change(model, path, planned.bits)
                _renew_scale(_synapses(model)[path])
        model.train(model.training)

    def state(self) -> dict[str, Tensor]:
        """The bits of now by layer."""
        return {path: torch.tensor(bits) for path, bits in self._bits.items()}

    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """The bits of then; the scales came with the weights.

        Raises:
            DataError: they are of another model.
        """
        if set(state) != set(self._planned):
            raise DataError("GradualBits: the stored bits are those of another model or plan")
        for path, bits in state.items():
            self._change(model, path, int(bits))


def _synapses(model: nn.Module) -> dict[str, Synapse]:
    return {path: m for path, m in model.named_modules() if isinstance(m, Synapse) and not m.is_frozen}


def _wider(quantizer: Quantizer, bits: int) -> Quantizer | None:
    """The same quantizer with more bits; None if it has as many already, or only one width."""
    fields = {field.name for field in dataclasses.fields(quantizer) if field.init}  # type: ignore[arg-type]
    if quantizer.bits >= bits or "bits" not in fields or is_stateful(quantizer):
        return None
    try:
        found: Quantizer = dataclasses.replace(quantizer, bits=bits)  # type: ignore[type-var]
    except PlanError:
        return None
    return found


@torch.no_grad()
def _renew_scale(synapse: Synapse) -> None:
    branch = None if synapse.link is None else synapse.link.branch
    scale = branch.joint_scale() if branch is not None and branch.shared else synapse.fitted_scale()
    synapse.weight_scale.copy_(scale)


__all__ = ["GradualBits"]

"""The fault-aware term: weights are pulled to the levels that the hardware can hold."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.nn import Synapse
from spikequant.quantizers.stateful import is_stateful
from spikequant.training.step import LossTerm, Step, check_weight


@final
class LevelPull(LossTerm):
    """``mean over layers of mean ((w - Q(w)) / s)^2``: squared distance of every weight from the level it is stored as.

    ``Q(w) = s c`` is the nearest level of the layer's quantizer, in which no gradient flows; ``s`` is the real size of
    one code.  With `faults` some codes are stuck, as cells of a memory are: a mask (True where stuck) and the codes
    they hold, by layer; those weights count with the level they are stuck at, and so learn to be close to it.
    Layers whose quantizer keeps a state (soft or learned levels) are left alone.
    Source: Biswas and Ganguly 2024 (QFALT), a regularizer that pulls weights to the levels a device can hold; the
    form of the penalty is ours.

    Args:
        weight: factor of the term.
        faults: ``{path: (mask, codes)}``, both in the shape of the layer's weight.

    Raises:
        DataError: a number out of its range; `faults` of a layer that is not there or has another shape.
    """

    def __init__(self, weight: float = 1e-2, *, faults: dict[str, tuple[Tensor, Tensor]] | None = None) -> None:
        self.weight = check_weight("LevelPull", weight)
        self.faults = dict(faults or {})

    def prepare(self, model: nn.Module) -> None:
        """Look for quantized weights, and for the layers of the faults."""
        found = {path: m for path, m in model.named_modules() if isinstance(m, Synapse)}
        if not found:
            raise DataError("LevelPull: the model has no quantized weights; call spikequant.quantize_ first")
        for path, (mask, codes) in self.faults.items():
            if path not in found:
                raise DataError(f"LevelPull: faults of {path!r}, but the quantized layers are {', '.join(found)}")
            shape = found[path].weight.shape
            if mask.shape != shape or codes.shape != shape or mask.dtype != torch.bool:
                raise DataError(
                    f"LevelPull: faults of {path}: mask {mask.dtype} {tuple(mask.shape)}, codes {tuple(codes.shape)}; "
                    f"expected a bool mask and codes of the shape {tuple(shape)}"
                )

    def of(self, step: Step) -> Tensor:
        """Mean squared distance from the levels, in codes."""
        parts = []
        for path, synapse in step.model.named_modules():
            if isinstance(synapse, Synapse) and not (synapse.is_frozen or is_stateful(synapse.quantizer)):
                codes, scale = synapse.codes().detach(), synapse.current_scale().detach()
                if path in self.faults:
                    mask, stuck = (t.to(codes.device) for t in self.faults[path])
                    codes = torch.where(mask, stuck.to(codes), codes)
                parts.append((synapse.folded_weight() / scale - codes).square().mean())
        if not parts:
            raise DataError("LevelPull: every layer is frozen, or has soft levels that move while they train")
        return torch.stack(parts).mean()


__all__ = ["LevelPull"]

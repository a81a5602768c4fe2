"""Parameters of a quantized model as an optimizer takes them: learned scales apart."""

from __future__ import annotations

from typing import Any

from torch import nn

from spikequant.nn import Synapse

SCALE_RATE = 0.02
"""Rate of learned scales beside that of the weights: a scale is some hundredths large, and Adam's steps are as long as
its rate whatever the gradient; at 1 the scale of an 8-bit layer can fall to nothing within an epoch."""


def parameter_groups(model: nn.Module, lr: float, *, scale_rate: float = SCALE_RATE) -> list[dict[str, Any]]:
    """What needs a gradient, for ``torch.optim.Adam(parameter_groups(model, 1e-3))``; scales at ``scale_rate * lr``.

    LSQ scales the gradient of its step so that it moves as slowly as the weights (Esser et al. 2020, section 2.2);
    Adam takes that out again, so here the rate does it.

    >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 3), 1e-3)]
    [2]
    """
    scales = {id(m.weight_scale) for m in model.modules() if isinstance(m, Synapse)}
    wanted = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in wanted if id(p) not in scales], "lr": lr},
        {"params": [p for p in wanted if id(p) in scales], "lr": lr * scale_rate},
    ]
    return [group for group in groups if group["params"]]

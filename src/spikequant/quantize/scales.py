"""Weight scales by the error of a layer's output on data, not of its weights alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikequant.nn import Synapse
from spikequant.nn.reset import reset_states as reset

FACTORS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)
MOST_ROWS = 512


Seen = list[list[Tensor]]
"""What a module was called with: per batch, one tensor for every call."""


@torch.no_grad()
def refine_scale(synapse: Synapse, seen: Callable[[], Seen]) -> None:
    """Move a fixed weight scale to the factor of least output error, per output channel.

    ``min_k sum_x ((w - s_k Q(w / s_k)) . x)^2`` over `FACTORS` of the fitted scale, where x
    is what the settled layers in front give (`seen`, asked for only if it is needed); the layer-wise
    reconstruction error of post-training quantization (Nagel et al. 2020, section 3).  Learned, dynamic
    and shared scales stay.
    """
    shared = synapse.link is not None and synapse.link.branch.shared
    if synapse.is_frozen or synapse.quantizer.scale_mode != "fixed" or shared or synapse.quantizer.name != "uniform":
        return
    x = _rows(synapse, seen())
    weight, start = synapse.folded_weight(), synapse.weight_scale.clone()
    channel = 1 if synapse.kind == "conv" else -1
    best = torch.full((weight.shape[0],), float("inf"), dtype=torch.float64)
    chosen = torch.ones_like(best)
    for factor in FACTORS:
        scale = start * factor
        change = weight - synapse.quantizer.codes(weight, scale) * scale
        wrong = synapse.linear_map(x, change.to(x.dtype)).movedim(channel, 0).flatten(1)
        error = wrong.square().sum(1, dtype=torch.float64)
        if start.numel() == 1:
            error = error.sum().expand_as(error)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, factor, chosen)
    factors = chosen[0] if start.numel() == 1 else chosen.reshape(start.shape)
    synapse.weight_scale.copy_(start * factors.to(start.dtype))


def _rows(synapse: Synapse, seen: Seen) -> Tensor:
    """Integer inputs of a layer as ``[rows, ...]``, at most `MOST_ROWS` of them, evenly taken."""
    features = synapse.weight.dim() - 1 if synapse.kind == "conv" else 1
    rows = torch.cat([x.reshape(-1, *x.shape[-features:]) for batch in seen for x in batch])
    return synapse.integer_input(rows[:: max(1, len(rows) // MOST_ROWS)])


def flows_into(model: nn.Module, module: nn.Module, inputs: list[Tensor]) -> Seen:
    """What `module` is called with, per batch one tensor for every call (one per step in a loop over time)."""
    seen: Seen = []
    handle = module.register_forward_pre_hook(lambda _m, args: seen[-1].append(args[0]))
    try:
        for x in inputs:
            reset(model)
            seen.append([])
            model(x)
    finally:
        handle.remove()
        reset(model)
    return seen

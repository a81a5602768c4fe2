"""Weight scales by the error of a layer's output on data, not of its weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from spikequant.nn import Synapse
from spikequant.nn.reset import reset_states as reset

FACTORS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)
WIDER = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, *FACTORS, 1.35, 1.5)
"""Of a scale that was not fitted to the error of the weights, but is a start for learning."""
FITTED = ("uniform", "power_of_two", "lsq")
"""Quantizers for which this was measured to help; the levels of others are fitted together with their scale."""
LEARNED_FROM_BITS = 3
"""Learned scales of fewer bits keep their start, which is wide so that few weights are clipped and stop learning: three
seeds of LSQ at 2 bits, trained on for an epoch, lost 1.93 points (moved: 3.19) on Fashion-MNIST, 1.6 (0.9) on MNIST."""
MOST_ROWS = 512
FEW_CHANNELS = 64


Seen = list[list[Tensor]]
"""What a module was called with: per batch, one tensor for every call."""


@torch.no_grad()
def refine_scale(synapse: Synapse, seen: Callable[[], Seen], fitted: Tensor | None = None) -> None:
    """Move a weight scale to the factor of least output error, per output channel.

    ``min_k sum_x ((w - s_k Q(w / s_k)) . x)^2`` over `FACTORS` of a fitted scale and `WIDER` ones of a learned one,
    where x is what the settled layers in front give (`seen`, asked for only if it is needed); the layer-wise
    reconstruction error of post-training quantization (Nagel et al. 2020, section 3).  The factors are those of what
    the quantizer fits, and a scale that was moved before is among the tried ones, so that a second call changes
    nothing, unless the layer's own neurons feed it: these are settled then, and fire otherwise.
    A learned scale moves from its start only, and stays once it was calibrated or trained.  Dynamic and shared scales
    stay.  `fitted`: what the quantizer fits on these weights, where it is known.
    """
    shared = synapse.link is not None and synapse.link.branch.shared
    mode, name = synapse.quantizer.scale_mode, synapse.quantizer.name
    if synapse.is_frozen or mode == "dynamic" or shared or name not in FITTED:
        return
    if mode == "learned" and not _starts(synapse):
        return
    x = _rows(synapse, seen())
    weight, kept = synapse.folded_weight(), synapse.weight_scale.clone()
    start = synapse.fitted_scale() if fitted is None else fitted
    tried = [start * factor for factor in (WIDER if mode == "learned" else FACTORS)]
    if not torch.equal(kept, start):  # moved before, by this or by another: one more to choose from
        tried.append(kept)
    best = torch.full((weight.shape[0],), float("inf"), dtype=torch.float64)
    chosen = torch.zeros(len(best), dtype=torch.int64)
    changes = (weight - synapse.quantizer.codes(weight, s) * s for s in tried)
    for k, error in enumerate(_errors(synapse, x, changes)):
        if start.numel() == 1:
            error = error.sum().expand_as(error)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, k, chosen)
    each = torch.stack([s.reshape(-1) for s in tried]).expand(-1, len(best))
    found = each.gather(0, chosen[None].to(each.device))[0]
    synapse.weight_scale.copy_(found[0].reshape(start.shape) if start.numel() == 1 else found.reshape(start.shape))


def _starts(synapse: Synapse) -> bool:
    """Whether a learned scale may move: nothing has moved it, and training does not depend on its start."""
    untouched = torch.equal(synapse.weight_scale, synapse.fitted_scale())
    return untouched and synapse.quantizer.bits >= LEARNED_FROM_BITS


def _errors(synapse: Synapse, x: Tensor, changes: Iterable[Tensor]) -> Iterator[Tensor]:
    """Squared error of the output per channel, in float64, for each change of the weights."""
    if synapse.kind == "linear" and len(synapse.weight) <= FEW_CHANNELS:  # one pass over the rows for all of them
        each = torch.stack(list(changes)).to(x.dtype)
        wrong = synapse.linear_map(x, each.flatten(0, 1)).movedim(-1, 0).flatten(1)
        yield from wrong.square().sum(1, dtype=torch.float64).unflatten(0, each.shape[:2])  # type: ignore[no-untyped-call]
        return
    for change in changes:
        wrong = synapse.linear_map(x, change.to(x.dtype)).movedim(1 if synapse.kind == "conv" else -1, 0).flatten(1)
        yield wrong.square().sum(1, dtype=torch.float64)


def _rows(synapse: Synapse, seen: Seen) -> Tensor:
    """Integer inputs of a layer as ``[rows, ...]``, at most `MOST_ROWS` of them, evenly taken."""
    features = synapse.weight.dim() - 1 if synapse.kind == "conv" else 1
    parts = [x.reshape(-1, *x.shape[-features:]) for batch in seen for x in batch]
    every, before, taken = max(1, sum(map(len, parts)) // MOST_ROWS), 0, []
    for part in parts:
        taken.append(part[-before % every :: every])
        before += len(part)
    return synapse.integer_input(torch.cat(taken))


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

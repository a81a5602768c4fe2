"""Which samples siblings classify right, where their last layer only adds up what the spikes of a layer bring.

The sum over time of a linear layer's currents is the linear layer of the spikes summed over time: one product of whole
numbers for all steps and all siblings.  The network itself rounds each current and their sum to float32.  Where the two
best classes are further apart than that can move, the order is theirs; the few samples where they are not are
computed step by step, as the network does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from spikequant.explore.tree import Node
from spikequant.nn import Synapse

if TYPE_CHECKING:
    from spikequant.explore.stage_run import Frame, StageRun

Right = npt.NDArray[np.bool_]
EXACT = 2**24
"""Below it, float32 holds every whole number."""
LEAST_LSB = 1e-30
"""Above it, no current is so small that float32 rounds it by more than its share."""


@dataclass(frozen=True, eq=False)
class Siblings:
    """Frozen linear readouts of one shape, in whole units of their spikes.

    Attributes:
        codes: ``[siblings * classes, features]``.
        biases: in accumulator LSBs, ``[siblings, classes]``.
        doubt: for each sibling, how far two classes must be apart, in LSBs over all steps.
    """

    layers: tuple[Synapse, ...]
    codes: Tensor
    biases: Tensor
    doubt: Tensor


@torch.no_grad()
def rights(run: StageRun, parent: Frame, nodes: Sequence[Node], targets: Tensor) -> dict[Node, Right]:
    """Which samples of a batch each sibling classifies right; {} where the spikes over time do not say it."""
    if parent.summed is None:
        return {}
    siblings = _siblings([node.modules.get(run.stage(node).end) for node in nodes], run.network.graph.steps)
    if siblings is None:
        return {}
    first, steps = siblings.layers[0], run.network.graph.steps
    spikes = parent.summed.reshape(parent.samples, -1).to(torch.float32)
    sums = F.linear(spikes, siblings.codes).to(torch.float64).reshape(parent.samples, *siblings.biases.shape)
    scores = sums * 2.0**first.readout_bits + steps * siblings.biases
    best, second = scores.topk(2).values.unbind(-1)
    right, unsure = scores.argmax(-1) == targets[:, None], best - second <= siblings.doubt
    for k, layer in enumerate(siblings.layers):
        places = unsure[:, k].nonzero().flatten()
        if len(places):
            right[places, k] = _step_by_step(run, parent, layer, places) == targets[places]
    return {node: right[:, k].numpy() for k, node in enumerate(nodes)}


@torch.no_grad()
def sums_of_all(run: StageRun, parent: Frame, nodes: Sequence[Node]) -> dict[Node, Tensor]:
    """Integer sums of all steps of a last linear layer, for siblings at once; {} where that is not exact."""
    stage = run.stage(nodes[0])
    at_end = {node: node.modules.get(stage.end) for node in nodes}
    layers = {node: m for node, m in at_end.items() if isinstance(m, Synapse) and m.link is None and m.is_frozen}
    nodes, linear = list(layers), [m for m in layers.values() if m.kind == "linear"]
    if len(linear) < max(2, len(nodes)) or stage.modules != (stage.end,):
        return {}
    first = linear[0]
    alike = {(m.unit, m.input_bound, m.input_scale is None, m.is_soft) for m in linear}
    codes = torch.cat([m.codes() for m in linear])
    largest = float(codes.abs().sum(1).max()) * first.input_bound
    if len(alike) > 1 or first.input_scale is not None or largest >= EXACT:
        return {}
    run.enter(nodes[0])
    given = run.given_to(run.below(parent, nodes[0]), next(node for node in stage.nodes if node.path == stage.end))
    sums = F.linear(first.integer_input(given), codes)
    return dict(zip(nodes, torch.split(sums, [len(m.weight) for m in linear], dim=-1), strict=True))


def _siblings(layers: Sequence[object], steps: int) -> Siblings | None:
    """The layers side by side; None if one is none of this kind, or its sums are too large to be exact."""
    found = [m for m in layers if isinstance(m, Synapse) and m.link is None and m.is_frozen and not m.is_soft]
    if not found or len(found) < len(layers):
        return None
    alike = {(m.unit, m.input_bound, m.weight_scale.numel(), m.readout_bits, m.weight.shape) for m in found}
    first = found[0]
    plain = first.unit == 1.0 and first.weight_scale.numel() == 1 and len(first.weight) > 1
    if len(alike) > 1 or not plain or any(m.input_scale is not None or m.watch is not None for m in found):
        return None
    codes = torch.stack([m.codes() for m in found])
    zero = torch.zeros(len(first.weight), dtype=torch.float64)
    biases = torch.stack([zero if bias is None else bias for bias in (m.readout_bias() for m in found)])
    most = codes.abs().sum(2, dtype=torch.float64).amax(1) * first.input_bound
    if float(most.max()) * steps >= EXACT or min(float(m.readout_lsb()[0]) for m in found) < LEAST_LSB:
        return None
    largest = most * 2.0**first.readout_bits + biases.abs().amax(1)
    # of every current, of every partial sum, of the mean and of the factor behind it, for each of two classes
    doubt = 2 * largest * steps * (steps + 4) / EXACT
    return Siblings(tuple(found), codes.flatten(0, 1), biases, doubt)


def _step_by_step(run: StageRun, parent: Frame, layer: Synapse, places: Tensor) -> Tensor:
    """The classes of some samples of a batch, rounded as the network rounds them."""
    assert run.network.summed is not None
    train = parent.value(run.network.summed)[:, places].flatten(2)
    sums = F.linear(layer.integer_input(train), layer.codes())
    whole = torch.zeros(len(train), parent.samples, sums.shape[2])
    whole[:, places] = layer.currents(sums)
    return run.runner.reading({run.network.graph.output.source: whole}).argmax(-1)[places]

"""The Hessian of a spiking layer: how its membranes answer to a change of one weight.

A change ``dW`` of the weights changes the membrane of an output channel by ``M X dw``, with
``X`` ``[T, fan-in]`` the spikes of a sample, and ``M`` the decay of what has arrived,
``M[i, j] = leak^(i - j)`` for ``i >= j`` (ones without a leak; the product of both kernels
behind a synaptic current).  The squared error over samples and steps is quadratic in
``dw`` with

    H = 2 sum_samples (M X)^T (M X)

Resets are left out, and so is pooling between the layer and its neurons.  A layer that feeds
no neuron is read as a sum over time, so its ``M`` is one row of ones.  Source: *OSBC /
Spiking Brain Compression*, arXiv 2506.03996.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.law.errors import Unsupported
from spikequant.nn import QuantizedNeuron, Synapse
from spikequant.quantize.scales import Seen, flows_into
from spikequant.quantizers.channels import widened

Clock = list[tuple[int, int]]
"""Time steps and samples of every batch."""
MOST_ELEMENTS = 2**24


@dataclass(frozen=True)
class Response:
    """How what reaches a layer's neurons lasts.

    Attributes:
        leaks: factors by which its states decay in a step; with several leaks per layer, their mean.
        summed: only the sum over time counts.
        free_bias: the best constant current is taken away first, because a bias is refitted behind the weights.
    """

    leaks: tuple[float, ...] = ()
    summed: bool = False
    free_bias: bool = False

    def over_time(self, x: Tensor) -> Tensor:
        """``M x`` for ``[T, ...]``.

        >>> Response(leaks=(0.5,)).over_time(torch.tensor([[1.0], [0.0], [1.0]])).flatten().tolist()
        [1.0, 0.5, 1.25]
        """
        if self.summed:
            return x.sum(0, keepdim=True)
        for leak in self.leaks:
            steps = [x[0]]
            for step in x[1:]:
                steps.append(leak * steps[-1] + step)
            x = torch.stack(steps)
        return x


def response_of(neuron: QuantizedNeuron | None, *, free_bias: bool = False) -> Response:
    """The response of the neurons behind a synapse; None: a readout without neurons."""
    if neuron is None:
        return Response(summed=True)
    names = [name for name in ("leak_i", "leak") if name in neuron.value_names]
    leaks = tuple(_factor(neuron, name) for name in names) or (1.0,)
    return Response(leaks=leaks, free_bias=free_bias)


def clock_of(model: nn.Module, inputs: list[Tensor]) -> Clock:
    """Steps and samples of every batch, as the first layer of neurons sees them; one step where there is none."""
    neuron = next((m for m in model.modules() if isinstance(m, QuantizedNeuron)), None)
    if neuron is None:
        return [(1, len(x)) for x in inputs]
    seen = flows_into(model, neuron, inputs)
    shapes = [(len(calls), *calls[0].shape) if neuron.step_mode == "s" else calls[0].shape for calls in seen]
    return [(shape[0], shape[1]) for shape in shapes]


def _factor(neuron: QuantizedNeuron, name: str) -> float:
    form = getattr(neuron.real_spec, name).form
    value = neuron.value(name).detach()
    if form == "multiply":
        return float(value.mean())
    if form in ("shift", "shift_forced"):
        return float(1 - torch.exp2(-value).mean())
    if form == "two_shifts":
        return float((1 - torch.exp2(-value) - torch.exp2(-neuron.value("leak2").detach())).mean())
    return 1.0


@torch.no_grad()
def hessians(synapse: Synapse, response: Response, seen: Seen, clock: Clock) -> Tensor:
    """``H`` of a layer, ``[groups, fan-in, fan-in]`` in float64; a linear layer has one group.

    Args:
        synapse: the layer.
        response: how its neurons keep what arrives.
        seen: what the layer is called with, per batch.
        clock: steps and samples of every batch.

    Raises:
        Unsupported: calls that are neither one per step, nor all steps at once, nor one for all of them.
    """
    groups, fan_in = synapse.geometry.groups, synapse.geometry.fan_in
    total = synapse.weight.new_zeros(groups, fan_in, fan_in, dtype=torch.float64)
    cross, weight = total.new_zeros(groups, fan_in), 0.0
    for calls, (steps, many) in zip(seen, clock, strict=True):
        x = over_steps(synapse, calls, steps, many)
        samples = max(1, MOST_ELEMENTS // max(1, x[:, :1].numel() * fan_in * groups // synapse.geometry.channels))
        for part in torch.split(x, samples, dim=1):
            rows = widened(_rows(synapse, response.over_time(_real_input(synapse, part))))
            total += (rows.transpose(1, 2) @ rows).to(torch.float64)
            if response.free_bias:
                ones = response.over_time(rows.new_ones(len(part), 1))
                constant = ones.expand(len(ones), rows.shape[1] // len(ones)).reshape(-1)
                cross += (constant @ rows).to(torch.float64)
                weight += float(constant.square().sum(dtype=torch.float64))
    if response.free_bias and weight > 0:
        total -= cross[:, :, None] * cross[:, None, :] / weight
    return 2 * total


def over_steps(synapse: Synapse, calls: list[Tensor], steps: int, samples: int) -> Tensor:
    """What a layer was called with in one batch as ``[T, N, *features]``; T is 1 for a static input.

    Raises:
        Unsupported: neither one call per step, nor ``[T, N, ...]``, ``[T * N, ...]`` or ``[N, ...]``.
    """
    if len(calls) > 1:
        return torch.stack(calls)
    [x] = calls
    lead = x.dim() - (synapse.weight.dim() - 1 if synapse.kind == "conv" else 1)
    if lead == 2:
        return x
    if lead == 1 and len(x) == samples:
        return x[None]
    if lead == 1 and len(x) == steps * samples:
        return x.reshape(steps, samples, *x.shape[1:])
    raise Unsupported(
        f"a layer was called with {tuple(x.shape)} where {samples} samples of {steps} steps run; "
        "expected [T, N, ...], [T * N, ...], [N, ...], or one call per step"
    )


def _real_input(synapse: Synapse, x: Tensor) -> Tensor:
    """What a weight is multiplied with, up to one factor: spikes, or data without their folded mean."""
    x = synapse.integer_input(x)
    if synapse.input_mean is None or synapse.input_scale is None:
        return x
    mean = synapse.input_mean / synapse.input_scale
    return x - mean.reshape(-1, *([1] * (synapse.weight.dim() - 2))) if synapse.kind == "conv" else x - mean


def _rows(synapse: Synapse, x: Tensor) -> Tensor:
    """``[groups, T * N * places, fan-in]``, time outermost."""
    if synapse.kind == "linear":
        return x.reshape(1, -1, x.shape[-1])
    shape = synapse.geometry.in_two_axes()
    merged = x.flatten(0, 1)
    images = merged.reshape(*merged.shape[:2], *([1] * (4 - merged.dim())), *merged.shape[2:])
    patches = F.unfold(images, shape.kernel, shape.dilation, shape.padding, shape.stride)
    apart = patches.unflatten(1, (shape.groups, -1))  # type: ignore[no-untyped-call]
    rows: Tensor = apart.permute(1, 0, 3, 2).flatten(1, 2)
    return rows

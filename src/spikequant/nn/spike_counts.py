"""Spikes of every neuron added up: a kernel that writes one row of bytes where a train has one of floats per step."""

from __future__ import annotations

import torch
from torch import Tensor

from spikequant.nn import kernels
from spikequant.nn.memory import POOL
from spikequant.nn.over_time import summed_over_samples
from spikequant.nn.program import given_to
from spikequant.nn.quantized_neuron import QuantizedNeuron

MOST = 255
"""What a byte holds."""


@torch.no_grad()
def spikes_over_time(neuron: QuantizedNeuron, x: Tensor) -> Tensor | None:
    """How often every neuron fires in each sample, from rest; None where no kernel adds that up.

    Shapes: ``x [T, N, *shape]`` to uint8 ``[N, *shape]``, in the memory format of one step of `x`.
    """
    if neuron.step_mode != "m" or neuron.carries or len(x) * neuron.neuron_spec.spikes_max > MOST:
        return None
    program, x, noise = given_to(neuron, x)
    run = kernels.Run(program.ops, program.spec, program.params, program.bias, noise, 0, keeps=False)
    found = kernels.summing(neuron, run, x)
    if found is None:
        return None
    kernel, call, x = found
    step, params = x if call.still else x[0], dict(run.params)
    params |= {} if run.bias is None else {"bias": run.bias}
    memory = POOL.empty((step.numel(),), torch.uint8).untyped_storage()
    output = torch.empty(0, dtype=torch.uint8).set_(memory, 0, step.shape, step.stride())
    values = [params[name].detach().to(x.dtype).contiguous() for name in kernel.face.params]
    operands = [x, output, call.keys(kernel.face.noises, x), *values, *[None] * (2 * len(call.states))]
    kernel(call.sizes(x, params, kernel.face), [None if t is None else t.data_ptr() for t in operands])
    return output


@torch.no_grad()
def spikes_over_samples(neuron: QuantizedNeuron, x: Tensor) -> Tensor:
    """What every neuron emits over all samples and steps: ``[T, N, *shape]`` to float32 ``[*shape]``."""
    counts = spikes_over_time(neuron, x) if neuron.spike_unit == 1.0 else None
    return summed_over_samples(neuron.advance(x) if counts is None else counts[None].to(torch.float32))

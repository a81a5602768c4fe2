"""The loop over time of one neuron layer: the one place that a faster kernel replaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikequant.law.neurons import prepare, step
from spikequant.law.noise import MASK, NOISE_ROLES, mix, step_key
from spikequant.law.spec import NeuronSpec
from spikequant.nn.by_step import apart, stacked
from spikequant.nn.torch_ops import TorchOps

States = dict[str, Tensor]


@dataclass(frozen=True)
class Noise:
    """Where the noise of stochastic rounding begins: its words depend on nothing else (`law/noise.py`)."""

    seed: int
    layer: int
    first_sample: int

    def words(self, shape: torch.Size, device: torch.device) -> Callable[[int], Callable[[str], Tensor]]:
        """The words of samples and neurons ``[N, *shape[1:]]``, by step and state."""
        return torch_noise(self.seed, self.layer, self.first_sample, shape, device)

    def keys(self, roles: tuple[str, ...], first_step: int, steps: int) -> Any:
        """What the words of each step and role start from, uint32 ``[steps, roles]``."""
        at = np.arange(first_step, first_step + steps, dtype=np.int64)
        start = mix(mix(0, self.seed), self.layer)
        keys = [mix(np.int64(mix(start, NOISE_ROLES[role])), at) for role in roles]
        return np.ascontiguousarray(np.stack(keys, axis=1).astype(np.uint32))


class Prepared(dict[str, Tensor]):
    """Parameters that `prepare` has seen."""


def zero_states(spec: NeuronSpec, like: Tensor) -> States:
    """Every state at rest, shaped like one step of input."""
    return {name: torch.zeros_like(like) for name in spec.state_formats()}


def run_over_time(
    ops: TorchOps,
    spec: NeuronSpec,
    params: Mapping[str, Tensor],
    x: Tensor,
    states: States,
    *,
    noise_at: Callable[[int], Callable[[str], Tensor]] | None = None,
    first_step: int = 0,
    watch: Callable[[States], None] | None = None,
) -> tuple[Tensor, States]:
    """Run `step` over the first axis of ``x: [T, N, *shape]``.

    `noise_at(t)` gives the words of a step; `watch` sees every new state.
    Returns the outputs ``[T, N, *shape]`` and the last states.
    """
    ready = params if isinstance(params, Prepared) else prepare(ops, spec, params)
    outputs = []
    for t, current in enumerate(apart(x), start=first_step):
        ops.begin_step()
        noise = noise_at(t) if noise_at is not None else None
        tick = ops.const(int((t + 1) % spec.adapt_every == 0)) if spec.adapt_every > 1 else None
        states, output = step(ops, spec, ready, states, current, noise=noise, tick=tick)
        if watch is not None:
            watch(states)
        outputs.append(output)
    return stacked(outputs), states  # a copy, of one step too: a user's `count += spikes` leaves the states alone


def add_per_step(x: Tensor, bias: Tensor) -> Tensor:
    """``x + bias`` before the loop; once, where `x` shows the same values at every step."""
    if x.dim() > 1 and x.stride(0) == 0 and x.shape[0] > 1:
        return (x[:1] + bias).expand_as(x)
    return x + bias


def torch_noise(
    seed: int, layer: int, first_sample: int, shape: torch.Size, device: torch.device
) -> Callable[[int], Callable[[str], Tensor]]:
    """The words of `law/noise.py` as int64 tensors ``[N, *shape[1:]]``, by step and state."""
    samples = torch.arange(first_sample, first_sample + shape[0], device=device, dtype=torch.int64)
    neurons = torch.arange(shape[1:].numel(), device=device, dtype=torch.int64)

    def at(t: int) -> Callable[[str], Tensor]:
        def words(state: str) -> Tensor:
            key = torch.full_like(samples, step_key(seed, layer, state, t))
            mixed: Tensor = mix(mix(key, samples)[:, None], neurons[None, :])
            return (mixed & MASK).reshape(shape)

        return words

    return at

"""A layer of one-state neurons in the form in which it learns, step by step, without a graph through time."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.law.eligibility import charge, eligibility
from spikequant.law.errors import Unsupported
from spikequant.law.presets import single_state
from spikequant.nn.neuron import Neuron

SYNAPSE_KINDS = (nn.Conv2d, nn.Linear)


@final
class TrainingForm:
    """A synapse and its `SingleState` layer as ``P, R, U``: the same spikes, and ``P = dU/dW`` at hand.

    The gradient of a step's membrane goes to weight and bias of this layer and no further: inputs and states of
    earlier steps are constants.  The modules stay as they are.

    Args:
        synapse: convolution or linear layer with a bias.
        neuron: ``SingleState``; its own state is not touched.

    Raises:
        Unsupported: another neuron, or a synapse of another kind or without a bias.
    """

    def __init__(self, synapse: nn.Module, neuron: nn.Module) -> None:
        if not isinstance(neuron, Neuron) or neuron.spec != single_state():
            kind = type(neuron).__name__
            raise Unsupported(f"local learning needs a real SingleState layer (before quantize_), got {kind}")
        if not isinstance(synapse, SYNAPSE_KINDS) or synapse.bias is None:
            raise Unsupported(
                f"local learning needs a Conv2d or Linear layer with a bias in front of SingleState, got {synapse}"
            )
        self.synapse, self.neuron = synapse, neuron
        self.reset()

    def reset(self) -> None:
        """Back to rest, before a new sample."""
        self.trace: Tensor | None = None
        self.moved: Tensor | None = None
        self.states: dict[str, Tensor] = {}

    def step(self, spikes: Tensor, *, perturbed: bool = False) -> tuple[Tensor, Tensor]:
        """``(U, S)`` of one step for the spikes ``[N, ...]`` that arrive, with a graph to this layer's parameters.

        `perturbed` adds a leaf of zeros to ``U`` before it fires, kept as `moved`: derivatives by the membrane.
        """
        ops = self.neuron.ops(spikes)
        bias = self.synapse.bias
        assert isinstance(bias, Tensor)
        params = {
            "leak": self.neuron.real_value("leak").detach().to(spikes),
            "leak_bits": ops.const(0.0),
            "bias": bias.reshape(-1, *[1] * (spikes.dim() - 2)),
        }
        spikes = spikes.detach()
        before = torch.zeros_like(spikes) if self.trace is None else self.trace
        trace = eligibility(ops, params, before, spikes)
        weighted = self._weighted(trace)
        is_first = not self.states
        states = self.states or {name: torch.zeros_like(weighted, requires_grad=False) for name in ("r", "u", "s")}
        with torch.no_grad():
            found, _ = charge(ops, params, states, weighted.detach(), is_first=is_first)
        membrane = weighted + params["bias"] - found["r"]
        if perturbed:
            self.moved = torch.zeros_like(membrane, requires_grad=True)
            membrane = membrane + self.moved
        fired = ops.sub(ops.const(1.0), ops.ge(ops.const(0.0), membrane))
        self.trace, self.states = trace, found
        return membrane, fired

    def _weighted(self, trace: Tensor) -> Tensor:
        """``W P``, without the bias."""
        synapse = self.synapse
        if isinstance(synapse, nn.Linear):
            return F.linear(trace, synapse.weight)
        assert isinstance(synapse, nn.Conv2d)
        return F.conv2d(trace, synapse.weight, None, synapse.stride, synapse.padding, synapse.dilation, synapse.groups)

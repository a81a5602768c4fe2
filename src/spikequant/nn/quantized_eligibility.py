"""A layer of quantized one-state neurons while it learns: integers decide what fires, the eligibility what learns.

    U[t] = a (1 - S[t-1]) V[t-1] + W_q S_in[t] + b      V: the stored, narrowed membrane of the integer simulation
    dU/dW_q = P[t],   P[t] = a P[t-1] + S_in[t]          straight through rounding and narrowing

The membrane has this value, and the gradient of the real training form (`nn.eligibility`).
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.law.eligibility import eligibility
from spikequant.law.errors import Unsupported
from spikequant.law.presets import single_state
from spikequant.nn.quantized_neuron import QuantizedNeuron
from spikequant.nn.synapse import Synapse
from spikequant.nn.torch_ops import TorchOps


@final
class QuantizedTrainingForm:
    """What `TrainingForm` is for real layers: the same spikes as the quantized layer, and gradients of one step.

    Args:
        synapse: quantized and linked to `neuron` alone, with a bias and without batch norm.
        neuron: a quantized ``SingleState``, not frozen; its own state is used and reset.

    Raises:
        Unsupported: another neuron or synapse, or a frozen one.
    """

    def __init__(self, synapse: nn.Module, neuron: nn.Module) -> None:
        if not isinstance(neuron, QuantizedNeuron) or neuron.real_spec != single_state() or neuron.is_frozen:
            state = "a frozen one" if isinstance(neuron, QuantizedNeuron) and neuron.is_frozen else f"{neuron}"
            raise Unsupported(f"local learning needs a quantized SingleState layer before freeze, got {state}")
        branches = neuron.branches
        plain = len(branches) == 1 and branches[0].synapse is synapse and branches[0].norm is None
        if not isinstance(synapse, Synapse) or not plain or synapse.bias is None or synapse.input_scale is not None:
            raise Unsupported(
                "local learning of a quantized layer needs one synapse with a bias that takes spikes, without batch "
                f"norm, in front of SingleState; got {synapse}"
            )
        self.synapse, self.neuron = synapse, neuron
        self.reset()

    def reset(self) -> None:
        """Back to rest, before a new sample."""
        self.neuron.reset()
        self.trace: Tensor | None = None
        self.moved: Tensor | None = None
        self.states: dict[str, Tensor] = {}

    def step(self, spikes: Tensor, *, perturbed: bool = False) -> tuple[Tensor, Tensor]:
        """``(U, S)`` of one step for the spikes ``[N, ...]`` that arrive, as `TrainingForm.step` has them."""
        spikes = spikes.detach()
        like = spikes.dim() - 2
        leak = self.neuron.value("leak").detach().to(spikes)
        surrogate = self.neuron.surrogate.mirrored() if self.neuron.real_spec.compare == ">" else self.neuron.surrogate
        ops = TorchOps(surrogate=surrogate, lsb=None, detach_reset=self.neuron.detach_reset, like=spikes)
        params = {"leak": leak, "leak_bits": ops.const(0.0)}
        before = torch.zeros_like(spikes) if self.trace is None else self.trace
        self.trace = eligibility(ops, params, before, spikes)
        weight = self._weight()
        bias = self.neuron.real_bias()
        assert bias is not None
        bias = bias.to(spikes).reshape(-1, *[1] * like)
        weighted = self._applied(self.trace, weight) + bias
        with torch.no_grad():
            kept = self.neuron.in_real_units(self.neuron.state or {}).get("v", torch.zeros_like(weighted))
            u = leak * kept + self._applied(spikes, weight) + bias
            fired = self._fired(spikes)
        membrane = weighted + (u - weighted).detach()
        if perturbed:
            self.moved = torch.zeros_like(membrane, requires_grad=True)
            membrane = membrane + self.moved
        soft = ops.sub(ops.const(1.0), ops.ge(ops.const(0.0), membrane))
        self.states = {"u": u}
        return membrane, soft + (fired - soft).detach()

    def _fired(self, spikes: Tensor) -> Tensor:
        """Spikes of the integer simulation, which goes one step on."""
        kept, self.neuron.step_mode = self.neuron.step_mode, "s"
        try:
            found: Tensor = self.neuron(self.synapse(spikes))
        finally:
            self.neuron.step_mode = kept
        return found

    def _weight(self) -> Tensor:
        """Codes times their scale, straight through; what arrives counts in real units, averages of spikes too."""
        codes = self.synapse.codes()
        return codes * self.synapse.current_scale().to(codes)

    def _applied(self, x: Tensor, weight: Tensor) -> Tensor:
        """``W x``, without the bias."""
        synapse = self.synapse
        if synapse.kind == "linear":
            return F.linear(x, weight)
        return F.conv2d(x, weight, None, synapse.stride, synapse.padding, synapse.dilation, synapse.groups)

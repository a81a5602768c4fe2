"""The recurrent network of adaptive LIF neurons of Yin, Corradi and Bohte (2021), for spoken digits (SHD)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.law.errors import DataError
from spikequant.law.spec import Leak, NeuronSpec
from spikequant.nn import LeakyIntegrator, Neuron

BASE_THRESHOLD = 0.01
ADAPTATION = 1.8
MULTIPLY = Leak(form="multiply")
SPEC = NeuronSpec(
    order=("leak", "integrate", "reset_delayed", "fire", "decay_threshold", "raise_threshold"),
    leak=MULTIPLY,
    leak_a=MULTIPLY,
    reset="subtract",
    compare=">",
    adapt_in_reset=True,
)
"""``m = a m + (1 - a) x - B s[t-1]``; fires at ``m > B - bias``; ``B = 0.01 + 1.8 b``, ``b = r b + (1 - r) s[t-1]``.

The law keeps ``1.8 b``, decayed and raised behind the comparison, so that the next step reads it as it is.
"""
Arrays = Mapping[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]
Readout = Literal["sum", "train"]


def adaptive_neuron(tau_m: Tensor, tau_adp: Tensor, bias: Tensor) -> Neuron:
    """A layer of adaptive neurons, single-step, one set of constants per neuron."""
    leak, leak_a = torch.exp(-1 / tau_m), torch.exp(-1 / tau_adp)
    values = {
        "leak": leak,
        "gain": 1 - leak,
        "threshold": BASE_THRESHOLD - bias,
        "reset_by": torch.full_like(bias, BASE_THRESHOLD),
        "leak_a": leak_a,
        "adapt": ADAPTATION * (1 - leak_a),
    }
    return Neuron(SPEC, values, step_mode="s")


class AdaptiveRecurrent(nn.Module):
    """Two recurrent layers of adaptive neurons and a leaky readout; every spike arrives one step later.

    Takes ``[T, N, inputs]``; gives the readout's membranes summed over time ``[N, classes]``, or, with
    ``readout="train"``, all of them ``[T, N, classes]``.

    Source: B. Yin, F. Corradi, S. Bohte, "Accurate and efficient time-domain classification with adaptive spiking
    recurrent neural networks", Nature Machine Intelligence, 2021.
    """

    def __init__(self, arrays: Arrays, *, readout: Readout = "sum") -> None:
        super().__init__()
        given = {name: torch.as_tensor(np.asarray(value)) for name, value in arrays.items()}
        missing = sorted({f"weights_{n}" for n in ("i_2_h1", "h1_2_h1", "h1_2_h2", "h2_2_h2", "h2_2_o")} - set(given))
        if missing:
            raise DataError(f"the trained network lacks {missing[0]!r}; it has {', '.join(sorted(given))}")
        self.readout = readout
        self.in1, self.back1 = _linear(given["weights_i_2_h1"]), _linear(given["weights_h1_2_h1"])
        self.in2, self.back2 = _linear(given["weights_h1_2_h2"]), _linear(given["weights_h2_2_h2"])
        self.hidden1 = adaptive_neuron(given["tau_m_h1"], given["tau_adp_h1"], given["bias_h1"])
        self.hidden2 = adaptive_neuron(given["tau_m_h2"], given["tau_adp_h2"], given["bias_h2"])
        leak = torch.exp(-1 / given["tau_m_o"])
        self.out = _linear((1 - leak)[:, None] * given["weights_h2_2_o"])  # a readout has one scale: no gain per class
        self.integrator = LeakyIntegrator(leak=leak, step_mode="s")

    @staticmethod
    def load(path: str | os.PathLike[str], *, readout: Readout = "sum") -> AdaptiveRecurrent:
        """The trained network in an ``.npz`` file (``srnn_700_128_128_20.npz`` of SpikingDSE)."""
        with np.load(path, allow_pickle=False) as arrays:
            return AdaptiveRecurrent(dict(arrays), readout=readout)

    def forward(self, x: Tensor) -> Tensor:
        """Membranes of the readout."""
        s1 = torch.zeros(x.shape[1], self.in1.weight.shape[0])
        s2 = torch.zeros(x.shape[1], self.in2.weight.shape[0])
        membranes = []
        for step in x:
            membranes.append(self.integrator(self.out(s2)))
            new1 = self.hidden1(self.in1(step) + self.back1(s1))
            s2 = self.hidden2(self.in2(s1) + self.back2(s2))
            s1 = new1
        train = torch.stack(membranes)
        return train.sum(0) if self.readout == "sum" else train

    def start_as_trained(self, batch: int) -> None:
        """Start the adaptation at 0.01 as the trained network does; integer networks start from rest, at 0."""
        for layer in (self.hidden1, self.hidden2):
            zeros = torch.zeros(batch, layer.real_value("threshold").numel())
            start = ADAPTATION * BASE_THRESHOLD * layer.real_value("leak_a")
            layer.state = {"v": zeros, "a": start.expand_as(zeros).clone(), "s": zeros.clone()}


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer

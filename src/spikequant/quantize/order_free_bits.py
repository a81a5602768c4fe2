"""Weight bits for a chip that saturates at every event: the most for which no order of delivery can saturate."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spikequant.law.formats import IntArray
from spikequant.nn import Neuron
from spikequant.nn.chip import dash
from spikequant.plan import TensorRole
from spikequant.targets.order_free import Reach, reach

MOST_BITS, LEAST_BITS = 8, 2
ROOM = 0.7
"""Share of the register that the weights of now may use: calibration moves scales by up to 1 / 0.7."""


@torch.no_grad()
def weight_bits(
    weights: list[tuple[Tensor, IntArray]], neuron: Neuron, role: TensorRole, *, state_bits: int, where: str
) -> tuple[int, IntArray]:
    """Bits for the synapses of one group, and the most spikes of each neuron in a step.

    Args:
        weights: per synapse the real weights ``[out, in]`` and the most spikes of every input in a step.
        neuron: the real neuron (leaks and threshold).
        role: the plan's weight role; its own bits win where it has some and they fit.
        state_bits: of the chip's registers.
        where: name of the layer.
    """
    found: tuple[int, Reach] | None = None
    for bits in range(MOST_BITS, LEAST_BITS - 1, -1):
        found = bits, _reach(weights, neuron, role.model_copy(update={"bits": bits}), state_bits, where)
        most = max(int(found[1].current[1].max()), -int(found[1].current[0].min()))
        change = max(int(found[1].change[1].max()), -int(found[1].change[0].min()))
        if max(most, change) <= ROOM * (2 ** (state_bits - 1) - 1):
            break
    assert found is not None
    return found[0], found[1].spikes


def _reach(
    weights: list[tuple[Tensor, IntArray]], neuron: Neuron, role: TensorRole, state_bits: int, where: str
) -> Reach:
    quantizer = role.build(where)
    scales = [quantizer.fit(w, channel_axis=0 if role.per_channel else None) for w, _ in weights]
    scale = torch.stack(scales).amax(0)
    shifts = {name: dash(neuron.real_value(name).detach().double().reshape(-1)) for name in ("leak", "leak_i")}
    kept = 1.0 - torch.exp2(-shifts["leak_i"])
    lsb = scale.double().reshape(-1) / kept.clamp_min(2.0**-15)
    theta = np.ceil((neuron.real_value("threshold").detach().double().reshape(-1) / lsb).numpy()).astype(np.int64)
    positive = negative = np.zeros(len(weights[0][0]), dtype=np.int64)
    for weight, most in weights:
        codes = quantizer.codes(weight, scale).to(torch.int64).numpy()
        positive = positive + np.maximum(codes, 0) @ most
        negative = negative + np.minimum(codes, 0) @ most
    params = {name: value.to(torch.int64).numpy() for name, value in shifts.items()} | {"theta": theta}
    return reach(positive, negative, params, most_spikes=neuron.spec.spikes_max, bits=state_bits)

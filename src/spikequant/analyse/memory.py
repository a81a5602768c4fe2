"""Memory of a model in true bits, before and after quantization, by layer and role."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spikequant.law.formats import signed_bits_for
from spikequant.measure import MemoryRow
from spikequant.nn import NORMS, SYNAPSES, Neuron, QuantizedNeuron, Synapse

REAL_BITS = 32
PARAMETER_ROLES = {
    "theta": "threshold",
    "reset": "reset",
    "bias": "bias",
    "floor": "threshold",
    "adapt": "threshold",
    "leak": "leak",
    "leak2": "leak",
    "leak_i": "leak",
    "leak_a": "leak",
}


def memory_rows(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> list[MemoryRow]:
    """Every stored number of a real or quantized model.

    Flash: weight codes at their bits, integer thresholds, resets, biases and leaks at the
    fewest bits that hold them (a real model: 32 bits each).  RAM: the states of every
    neuron.  `shapes` gives the neurons of each layer (`Observation.shapes`).
    """
    rows: list[MemoryRow] = []
    for path, module in model.named_modules():
        if isinstance(module, Synapse):
            rows += _synapse(path, module)
        elif isinstance(module, SYNAPSES):
            rows.append(MemoryRow(path, "weight", module.weight.numel(), REAL_BITS))
            if module.bias is not None:
                rows.append(MemoryRow(path, "bias", module.bias.numel(), REAL_BITS))
        elif isinstance(module, NORMS):
            rows.append(MemoryRow(path, "bias", 4 * module.num_features, REAL_BITS))
        elif isinstance(module, (Neuron, QuantizedNeuron)):
            rows += _neuron(path, module, shapes.get(path, ()))
    return rows


def connection_sparsity(model: nn.Module) -> float:
    """Share of weights, or codes, that are 0; NeuroBench's definition, unrounded."""
    zeros = total = 0
    for module in model.modules():
        if isinstance(module, (Synapse, *SYNAPSES)):
            weight = module.codes() if isinstance(module, Synapse) else module.weight
            zeros += int((weight == 0).sum())
            total += weight.numel()
    return zeros / total if total else 0.0


def _synapse(path: str, module: Synapse) -> list[MemoryRow]:
    rows = [MemoryRow(path, "weight", module.weight.numel(), module.quantizer.bits)]
    bias = module.readout_bias() if module.link is None else None
    if bias is not None:
        rows.append(_integers(path, "bias", bias))
    return rows


def _integers(path: str, role: str, values: Tensor) -> MemoryRow:
    whole = values.detach().to(torch.int64)
    return MemoryRow(path, role, whole.numel(), signed_bits_for(int(whole.min()), int(whole.max())))


def _neuron(path: str, module: Neuron | QuantizedNeuron, shape: tuple[int, ...]) -> list[MemoryRow]:
    count = 1
    for size in shape:
        count *= size
    if isinstance(module, Neuron):
        parameters = [MemoryRow(path, _real_role(n), getattr(module, n).numel(), REAL_BITS) for n in module.value_names]
        return parameters + [MemoryRow(path, _state_role(s), count, REAL_BITS) for s in module.spec.state_formats()]
    with torch.no_grad():
        found = module.integers()
    rows = [_integers(path, PARAMETER_ROLES[n], v) for n, v in found.params.items() if n in PARAMETER_ROLES]
    formats = found.spec.state_formats()
    return rows + [MemoryRow(path, _state_role(s), count, f.bits) for s, f in formats.items() if f is not None]


def _real_role(name: str) -> str:
    return "leak" if name.startswith("leak") else "reset" if name == "reset_to" else "threshold"


def _state_role(state: str) -> str:
    return {"v": "membrane", "i": "current", "a": "adaptive_threshold", "s": "spike_buffer", "r": "refractory"}[state]

"""What an allocator must know of a network besides its sensitivity: counts, errors of quantization, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spikequant.analyse.memory import memory_rows
from spikequant.analyse.probe import Observation, observe
from spikequant.analyse.recount import LOADS, Recount, Stored, stored_of
from spikequant.analyse.work import Work, work_of
from spikequant.frontends.registry import read_
from spikequant.measure import MemoryRow, energy_pj, moved_bits
from spikequant.nn import SYNAPSES, NeuronLayer, QuantizedNeuron, Synapse
from spikequant.nn.copying import copied
from spikequant.plan import Plan, TensorRole
from spikequant.quantize import quantize_

WEIGHT_WIDTHS = (*range(1, 13), 14, 16)
MEMBRANE_WIDTHS = (*range(2, 13), 14, 16)
DEFAULT_REACH = 8.0
PROBE_BITS = 8


@dataclass(frozen=True)
class LayerFact:
    """One layer in one role.

    Attributes:
        count: numbers that are stored: weights, or states of all neurons.
        squared_error: by width, mean over the numbers of ``(Q(x) - x)^2`` in real units: weights as they are, clipped
            where their squared error is least; membranes of a grid from minus to plus the threshold, ``step^2 / 12``.
        operations: synaptic operations a sample, of weights.
        energy_per_bit: pJ a sample for each bit of its width: a weight is fetched for every operation, a state is read
            and written in every step.
    """

    layer: str
    role: str
    count: int
    squared_error: dict[int, float]
    operations: float = 0.0
    energy_per_bit: float = 0.0

    def loads(self, bits: int) -> dict[str, float]:
        """What it takes at that width, by load: bits, and pJ of energy (of traffic: operations cost the same always).

        >>> LayerFact("fc", "weight", 640, {}, operations=50.0, energy_per_bit=7.8125).loads(4)
        {'memory': 2560.0, 'flash': 2560.0, 'energy': 31.25, 'synop_bits': 200.0}
        """
        stored, spent = float(self.count * bits), self.energy_per_bit * bits
        if self.role == "weight":
            return {"memory": stored, "flash": stored, "energy": spent, "synop_bits": self.operations * bits}
        return {"memory": stored, "ram": stored, "energy": spent}


@dataclass(frozen=True)
class Facts:
    """Of a network.

    Attributes:
        fixed: by load, what `rows` do not tell, as it is at eight bits everywhere: thresholds, biases, buffers, states
            and layers that stay real; of energy also the operations.
        real: what the real network takes.
        recount: counts what a plan really takes.
    """

    rows: tuple[LayerFact, ...]
    fixed: dict[str, float]
    real: Stored
    recount: Recount = field(repr=False, compare=False)

    def row(self, layer: str, role: str) -> LayerFact | None:
        """The facts of one layer in one role."""
        return next((r for r in self.rows if (r.layer, r.role) == (layer, role)), None)


@torch.no_grad()
def facts_of(model: nn.Module, x: Tensor, y: Tensor) -> Facts:
    """Off the real model and a copy quantized to eight bits.

    Raises:
        SpikequantError: the network has no integer form, as `quantize_` says it.
    """
    probe = copied(model)
    quantize_(probe, Plan.uniform(weight_bits=PROBE_BITS, membrane_bits=PROBE_BITS), x, quiet=True)
    before, after = observe(model, [(x, y)]), observe(probe, [(x, y)], operations=False)
    readings = read_(model)
    try:
        real = memory_rows(model, before.shapes, graph=before.graph, input_bits=before.input_bits, steps=before.steps)
        work = work_of(before)
        rows = _rows(model, probe, before, work)
    finally:
        readings.undo()
    stored = memory_rows(probe, after.shapes, graph=after.graph, input_bits=after.input_bits, steps=after.steps)
    whole, told = stored_of(stored, work), [row.loads(PROBE_BITS) for row in rows]
    fixed = {name: whole.of(name) - sum(one.get(name, 0.0) for one in told) for name in LOADS}
    return Facts(tuple(rows), fixed, stored_of(real, work), Recount(model, x, y, before))


def _rows(model: nn.Module, probe: nn.Module, seen: Observation, work: Work) -> list[LayerFact]:
    dressed = dict(probe.named_modules())
    rows = []
    for path, module in model.named_modules():
        twin = dressed.get(path)
        if isinstance(module, SYNAPSES) and isinstance(twin, Synapse):
            found = work.operations.get(path)
            operations = 0.0 if found is None else found.effective_macs + found.effective_acs
            spent = energy_pj(0, 0, weight_bits_read=operations, state_bits_moved=0).integer_ops_and_traffic
            errors = weight_errors(path, module.weight)
            rows.append(LayerFact(path, "weight", module.weight.numel(), errors, operations, spent))
        elif isinstance(module, NeuronLayer) and isinstance(twin, QuantizedNeuron) and path in seen.shapes:
            states = 2 if module.neuron_spec.has_current else 1
            reach = twin.default_limit() if module.neuron_spec.output == "spike" else DEFAULT_REACH
            errors = {bits: (2 * reach * 2.0**-bits) ** 2 / 12 for bits in MEMBRANE_WIDTHS}
            count = states * math.prod(seen.shapes[path])
            moved = moved_bits([MemoryRow(path, "membrane", count, 1)], steps=work.steps)
            spent = energy_pj(0, 0, weight_bits_read=0, state_bits_moved=moved).integer_ops_and_traffic
            rows.append(LayerFact(path, "membrane", count, errors, energy_per_bit=spent))
    return rows


def weight_errors(path: str, weight: Tensor, *, per_channel: bool = True) -> dict[int, float]:
    """Mean squared error of a weight by width, with a scale by channel or one: binary at one bit, uniform else."""
    errors = {}
    for bits in WEIGHT_WIDTHS:
        quantizer = weight_role(bits).build(path)
        scale = quantizer.fit(weight.detach(), channel_axis=0 if per_channel else None)
        codes = quantizer.codes(weight.detach(), scale)
        errors[bits] = float(((codes * scale - weight.detach()) ** 2).mean())
    return errors


def weight_role(bits: int) -> TensorRole:
    """How a weight of that many bits is quantized where a plan does not say it."""
    return TensorRole(quantizer="binary") if bits == 1 else TensorRole(bits=bits, clipping="mse")


def is_quantized(model: nn.Module) -> bool:
    """Whether something of the model is quantized already."""
    return any(isinstance(module, (Synapse, QuantizedNeuron)) for module in model.modules())

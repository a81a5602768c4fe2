"""What an allocator must know of a network besides its sensitivity: counts, errors of quantization, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spikequant.analyse.memory import memory_rows
from spikequant.analyse.probe import Observation, observe
from spikequant.analyse.recount import Recount
from spikequant.frontends.registry import read_
from spikequant.measure import flash_bits, ram_bits
from spikequant.measure.synops import SynOpsCount
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
    """

    layer: str
    role: str
    count: int
    squared_error: dict[int, float]
    operations: float = 0.0


@dataclass(frozen=True)
class Facts:
    """Of a network; memory in bits.

    Attributes:
        fixed_flash: what varies with no choice (thresholds, biases), as it is at eight bits everywhere.
        fixed_ram: buffers and states that no choice moves, likewise.
        float_flash: of the real network.
        float_ram: likewise.
        recount: counts what a plan really takes.
    """

    rows: tuple[LayerFact, ...]
    fixed_flash: int
    fixed_ram: int
    float_flash: int
    float_ram: int
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
        rows = _rows(model, probe, before)
    finally:
        readings.undo()
    stored = memory_rows(probe, after.shapes, graph=after.graph, input_bits=after.input_bits, steps=after.steps)
    fixed = [row for row in stored if row.role not in ("weight", "membrane", "current")]
    recount = Recount(model, x, y, before)
    return Facts(tuple(rows), flash_bits(fixed), ram_bits(fixed), flash_bits(real), ram_bits(real), recount)


def _rows(model: nn.Module, probe: nn.Module, seen: Observation) -> list[LayerFact]:
    dressed = dict(probe.named_modules())
    rows = []
    for path, module in model.named_modules():
        twin = dressed.get(path)
        if isinstance(module, SYNAPSES) and isinstance(twin, Synapse):
            found = seen.operations.get(path)
            operations = 0.0 if found is None else _effective(found.count()) / len(seen.right)
            rows.append(
                LayerFact(path, "weight", module.weight.numel(), weight_errors(path, module.weight), operations)
            )
        elif isinstance(module, NeuronLayer) and isinstance(twin, QuantizedNeuron) and path in seen.shapes:
            states = 2 if module.neuron_spec.has_current else 1
            reach = twin.default_limit() if module.neuron_spec.output == "spike" else DEFAULT_REACH
            errors = {bits: (2 * reach * 2.0**-bits) ** 2 / 12 for bits in MEMBRANE_WIDTHS}
            rows.append(LayerFact(path, "membrane", states * math.prod(seen.shapes[path]), errors))
    return rows


def _effective(count: SynOpsCount) -> float:
    return float(count.effective_macs + count.effective_acs)


def weight_errors(path: str, weight: Tensor) -> dict[int, float]:
    """Mean squared error of a weight by width: per channel, binary at one bit, uniform else."""
    errors = {}
    for bits in WEIGHT_WIDTHS:
        quantizer = weight_role(bits).build(path)
        scale = quantizer.fit(weight.detach(), channel_axis=0)
        codes = quantizer.codes(weight.detach(), scale)
        errors[bits] = float(((codes * scale - weight.detach()) ** 2).mean())
    return errors


def weight_role(bits: int) -> TensorRole:
    """How a weight of that many bits is quantized where a plan does not say it."""
    return TensorRole(quantizer="binary") if bits == 1 else TensorRole(bits=bits, clipping="mse")


def is_quantized(model: nn.Module) -> bool:
    """Whether something of the model is quantized already."""
    return any(isinstance(module, (Synapse, QuantizedNeuron)) for module in model.modules())

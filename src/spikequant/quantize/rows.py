"""The rows of a `QuantizeReport`: what became of every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikequant.capture import Graph
from spikequant.nn import STATEFUL, QuantizedNeuron, Synapse
from spikequant.nn.chip import dash
from spikequant.nn.integers import leak_bits
from spikequant.plan import Plan
from spikequant.quantize.groups import NORMALIZING, WEIGHTED
from spikequant.quantize.report import SECOND_OUTPUT, QuantizedRow

MOST_MOVED = 0.02
"""Share of a threshold that a chip's grid may move it by without a note."""


def sqnr_db(x: Tensor, quantized: Tensor) -> float:
    """Signal to quantization noise, ``10 log10(sum x^2 / sum (x - q)^2)`` in dB."""
    x = x.detach()
    noise = float((x - quantized).pow(2).sum())
    return float("inf") if noise == 0 else 10 * float(torch.log10(x.pow(2).sum() / noise))


@torch.no_grad()
def synapse_row(path: str, synapse: Synapse, *, asked: bool) -> QuantizedRow:
    """Weights: range and error of what the codes stand for."""
    was_training = synapse.training
    synapse.eval()  # the integers, not the soft form that a quantizer may train
    weight, restored = synapse.folded_weight(), synapse.codes() * synapse.current_scale()
    synapse.train(was_training)
    q, note = synapse.quantizer, "" if asked else "not asked: kept wide"
    return QuantizedRow(module=path, kind=synapse.kind, role="weight", quantizer=q.name, bits=q.bits, note=note,
                        low=float(restored.min()), high=float(restored.max()),
                        sqnr_db=sqnr_db(weight, restored))  # fmt: skip


def neuron_rows(path: str, quantized: QuantizedNeuron) -> list[QuantizedRow]:
    """States, threshold, bias and leak of one neuron group."""
    choice, rows = quantized.choice, []
    for role, state, register in (
        ("membrane", "v", choice.membrane),
        ("current", "i", choice.current),
        ("current", "x", choice.input),
    ):
        if register is not None:
            limit = float(getattr(quantized, f"{state}_limit"))
            beside = role == "current" and choice.membrane.asked
            note = (
                ""
                if register.asked
                else "not asked: as wide as the membrane's register"
                if beside
                else "not asked: kept wide"
            )
            name = "given levels" if register.table else "learned levels" if register.learned else "uniform"
            rows.append(QuantizedRow(module=path, kind="neuron", role=role, quantizer=name, bits=register.bits,
                                     low=-limit if register.signed else 0.0, high=limit, note=note))  # fmt: skip
    for role, quantizer in (("threshold", choice.threshold), ("leak", choice.leak), ("bias", choice.bias)):
        if quantizer is not None:
            rows.append(
                QuantizedRow(module=path, kind="neuron", role=role, quantizer=quantizer.name, bits=quantizer.bits)
            )
    if "leak" in quantized.value_names and choice.leak is None:
        rows += _leak_rows(path, quantized)
    return rows


def _leak_rows(path: str, quantized: QuantizedNeuron) -> list[QuantizedRow]:
    rule = quantized.choice.chip
    if rule is not None and rule.leak is not None and rule.leak.form == "shift_forced":
        names = [name for name in ("leak", "leak_i") if name in quantized.value_names]
        return [_shift_row(path, name, quantized.value(name).detach()) for name in names]
    bits = leak_bits(quantized.value("leak").detach(), quantized.choice.leak_bits)
    return [QuantizedRow(module=path, kind="neuron", role="leak", quantizer="k/2^b", bits=max(bits, 1))]


def _shift_row(path: str, name: str, leak: Tensor) -> QuantizedRow:
    """A decay by a shift: what it was, and what it is now."""
    shift = dash(leak)
    kept = 1.0 - torch.exp2(-shift)
    note = f"{name} {float(leak.mean()):.4g} -> 1 - 2^-{int(shift.max())} = {float(kept.max()):.4g}"
    return QuantizedRow(module=path, kind="neuron", role="leak", quantizer="1-2^-d", bits=4, note=note)


@torch.no_grad()
def threshold_notes(path: str, quantized: QuantizedNeuron) -> list[str]:
    """A sentence where the grid of a chip moves a threshold by more than `MOST_MOVED`."""
    if quantized.choice.chip is None or "threshold" not in quantized.value_names:
        return []
    found, wanted = quantized.integers(), quantized.value("threshold")
    moved = float((found.params["theta"] * found.lsb / wanted - 1.0).abs().max()) if bool((wanted != 0).all()) else 0.0
    if moved <= MOST_MOVED:
        return []
    return [
        f"{path}: the target's grid moves the threshold by {100 * moved:.3g} %: it is small beside the weights; "
        "scale weights and threshold, or clip the largest weights"
    ]


def skipped_rows(model: nn.Module, graph: Graph, done: set[str], plan: Plan) -> list[QuantizedRow]:
    """Layers of which nothing was quantized, and why."""
    used, rows = {n.path for n in graph.nodes if n.kind == "module"}, []
    for path, module in model.named_modules():
        if isinstance(module, (*WEIGHTED, *STATEFUL, *NORMALIZING)) and path not in done:
            why = "no rule of the plan asks for it" if path in used else "not called in the forward pass"
            is_asked = isinstance(module, WEIGHTED) and plan.layer(path).weight is not None
            why = SECOND_OUTPUT if path in used and is_asked else why
            rows.append(QuantizedRow(module=path, kind=type(module).__name__, role="-", note=why))
    return rows

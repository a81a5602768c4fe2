"""The numbers behind a cause: what a register, a grid or an input did to the values of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikequant.analyse.relief import Change
from spikequant.analyse.remedies import off_grid
from spikequant.nn import QuantizedNeuron
from spikequant.quantize.scales import flows_into

FINER_BITS = 8


def register_cause(
    neuron: QuantizedNeuron, is_well: Callable[[Change], bool]
) -> Literal["membrane_reach", "membrane_rounding"]:
    """Reach, if 8 bits more at the same reach do not help; else the fineness of what is stored."""
    asked, limit = neuron.choice.membrane, float(neuron.v_limit)
    finer = replace(asked, bits=min(asked.bits + FINER_BITS, 24))

    def change(n: QuantizedNeuron) -> None:
        n.choice = replace(n.choice, membrane=finer)
        n.v_limit.fill_(limit)
        n.choose_fraction_bits(None, "")

    return "membrane_rounding" if is_well(change) else "membrane_reach"


@torch.no_grad()
def evidence_for(cause: str, model: nn.Module, path: str, inputs: list[Tensor]) -> str:
    """A sentence of numbers about one cause (see `Cause`) in a layer."""
    neuron = model.get_submodule(path)
    assert isinstance(neuron, QuantizedNeuron)
    if cause.startswith("membrane"):
        return _membrane(model, neuron, inputs, is_reach=cause == "membrane_reach")
    if cause == "weight":
        return _weight(neuron)
    if cause == "input":
        return _input(neuron, inputs)
    if cause in ("threshold", "bias"):
        moved = off_grid(neuron, cause)
        return f"The grid of its {cause} moves {moved[0]} of {moved[1]} values by more than a tenth"
    if cause == "leak":
        found = neuron.integers()
        stored = found.params["leak"].mean() / 2.0**found.spec.leak.bits if found.spec.leak.form == "multiply" else None
        real = float(neuron.get_buffer("leak").mean()) if "leak" in dict(neuron.named_buffers()) else None
        return f"The leak {_or_learned(real)} is stored as {_or_learned(stored)}"
    if cause == "current":
        return "The register of the current ends too early or is too coarse"
    found = neuron.integers()
    lsb, theta = float(found.lsb.max()), neuron.default_limit()
    bits = neuron.fraction_bits
    return f"With {bits} fraction bits one LSB of the accumulator is {lsb:.4g}, the threshold {theta:.4g}"


def _or_learned(value: Any) -> str:
    return "learned" if value is None else f"{float(value):.4g}"


def _membrane(model: nn.Module, neuron: QuantizedNeuron, inputs: list[Tensor], *, is_reach: bool) -> str:
    """LSB and reach beside the threshold, and how much of the input a store keeps."""
    found, register = neuron.integers(), neuron.choice.membrane
    unit = found.params["v_load"] * found.lsb
    lsb = float(unit.mean())
    reach, theta = lsb * register.state_format().format.max, neuron.default_limit()
    if is_reach:
        return f"Its {register.bits}-bit membrane ends at {reach:.3g}, the threshold is {theta:.3g}"
    text = f"One LSB of its {register.bits}-bit membrane is {lsb:.3g}, the threshold {theta:.3g}"
    kept = 1.0 if register.rounding in ("toward_zero", "floor") else 0.5
    sizes = torch.cat([x.abs().reshape(-1) for batch in flows_into(model, neuron, inputs) for x in batch])
    sizes = sizes[sizes > 0].to(torch.float64) * float(found.lsb.mean())
    if len(sizes):
        lost = float((sizes < kept * lsb).double().mean())
        text += (
            f"; {register.rounding} keeps nothing of a step below {kept * lsb:.3g}, which {100 * lost:.0f} % of its "
            f"inputs are (mean {float(sizes.mean()):.3g})"
        )
    return text


def _weight(neuron: QuantizedNeuron) -> str:
    codes = torch.cat([branch.synapse.codes().detach().flatten(1) for branch in neuron.branches], dim=1)
    zero = float((codes == 0).double().mean())
    empty = int((codes == 0).all(1).sum())
    quantizer = neuron.branches[0].synapse.quantizer
    return (
        f"{100 * zero:.0f} % of its {quantizer.name} {quantizer.bits}-bit weight codes are zero, "
        f"{empty} of {len(codes)} channels have no other"
    )


def _input(neuron: QuantizedNeuron, inputs: list[Tensor]) -> str:
    synapse = next(b.synapse for b in neuron.branches if b.synapse.input_format is not None)
    assert synapse.input_scale is not None and synapse.input_format is not None
    scale = float(synapse.input_scale)
    reach = scale * synapse.input_format.max
    values = torch.cat([x.abs().reshape(-1) for x in inputs])
    values = values[values > 0]
    over = float((values > reach).double().mean()) if len(values) else 0.0
    under = float((values < scale / 2).double().mean()) if len(values) else 0.0
    return (
        f"The input's {synapse.input_format.bits}-bit codes reach {reach:.3g} in steps of {scale:.3g}: of the values "
        f"that are not zero {100 * over:.0f} % lie beyond and {100 * under:.0f} % become zero"
    )


@torch.no_grad()
def activity(model: nn.Module, paths: list[str], inputs: list[Tensor]) -> float:
    """Mean magnitude of what flows into weighted layers."""
    flows = [flows_into(model, model.get_submodule(path), inputs) for path in paths]
    means = [float(torch.cat([x.abs().reshape(-1) for batch in flow for x in batch]).mean()) for flow in flows]
    return sum(means) / len(means)

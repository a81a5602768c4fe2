"""Changes of the plan that may mend a layer, per role, cheapest first; `diagnose` tries them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from spikequant.analyse.relief import Change, input_bits, requantize, share_again
from spikequant.nn import QuantizedNeuron, Register, Synapse
from spikequant.quantizers import LSQ, MaxClipping, MSEClipping, Quantizer, Uniform

Remedy = tuple[str, str, Change]
"""Field of the plan, the value to write there, and the change that it means."""
ROUNDINGS = ("half_up", "half_even", "stochastic", "floor", "toward_zero")
MOST_BITS = 16


def remedies_for(role: str, neuron: QuantizedNeuron, peak: float) -> Iterator[Remedy]:
    """What a plan could say instead of one role of a layer; `peak` is the largest magnitude of the data."""
    if role == "membrane":
        yield from _membrane(neuron)
    elif role == "current":
        yield from _current(neuron)
    elif role == "weight":
        yield from _weight(neuron)
    elif role == "input":
        yield from _input(neuron, peak)
    elif role == "leak":
        yield from _leak(neuron)
    elif role == "fraction_bits":
        yield from _fraction_bits(neuron)
    elif role in ("threshold", "bias"):
        yield from _tensor(role, neuron)


def _membrane(neuron: QuantizedNeuron) -> Iterator[Remedy]:
    now, limit = neuron.choice.membrane, float(neuron.v_limit)
    if now.overflow == "wrap":
        yield "membrane.overflow", "saturate", _register(replace(now, overflow="saturate"), limit)
    for rounding in ROUNDINGS:
        if rounding != now.rounding:
            yield "membrane.rounding", rounding, _register(replace(now, rounding=rounding), limit)
    if not now.signed:
        yield "membrane.signed", "true", _register(replace(now, signed=True), limit)
    for factor in (2, 4, 8):
        yield "membrane.limit", f"{factor * limit:.4g}", _register(now, factor * limit)
    reach = max(limit, neuron.default_limit())
    for bits in range(now.bits + 1, MOST_BITS + 1):
        wider = replace(now, bits=bits)
        yield "membrane.bits", str(bits), _register(wider, limit)
        if reach > limit:
            yield "membrane.bits, membrane.limit", f"{bits}, {reach:.4g}", _register(wider, reach)


def _register(register: Register, limit: float) -> Change:
    def change(neuron: QuantizedNeuron) -> None:
        neuron.choice = replace(neuron.choice, membrane=register)
        neuron.v_limit.fill_(limit)
        neuron.choose_fraction_bits(None, "")

    return change


def _current(neuron: QuantizedNeuron) -> Iterator[Remedy]:
    is_state = neuron.choice.current is not None
    now = neuron.choice.current if is_state else neuron.choice.input
    assert now is not None
    limit = neuron.get_buffer("i_limit" if is_state else "x_limit")

    def change_to(register: Register, reach: float) -> Change:
        def change(n: QuantizedNeuron) -> None:
            n.get_buffer("i_limit" if is_state else "x_limit").fill_(reach)
            _set(n, **{"current" if is_state else "input": register})

        return change

    for rounding in ROUNDINGS:
        if rounding != now.rounding:
            yield "current.rounding", rounding, change_to(replace(now, rounding=rounding), float(limit))
    for factor in (2, 4, 8):
        yield "current.limit", f"{factor * float(limit):.4g}", change_to(now, factor * float(limit))
    for bits in range(now.bits + 1, MOST_BITS + 1):
        yield "current.bits", str(bits), change_to(replace(now, bits=bits), float(limit))


def _weight(neuron: QuantizedNeuron) -> Iterator[Remedy]:
    now = neuron.branches[0].synapse.quantizer
    if isinstance(now, Uniform):
        for clipping in (MSEClipping(), MaxClipping()):
            if now.clipping != clipping:
                yield "weight.clipping", clipping.name, _weights(Uniform(now.bits, clipping=clipping))
    for bits in range(now.bits + 1, 13):
        if isinstance(now, LSQ):
            yield "weight.bits", str(bits), _weights(Uniform(bits, clipping=MSEClipping()))
        elif isinstance(now, Uniform):
            yield "weight.bits", str(bits), _weights(replace(now, bits=bits))
        else:
            yield "weight.quantizer, weight.bits", f"uniform, {bits}", _weights(Uniform(bits, clipping=MSEClipping()))


def _weights(quantizer: Quantizer) -> Change:
    def change(neuron: QuantizedNeuron) -> None:
        for branch in neuron.branches:
            requantize(branch.synapse, quantizer)
        share_again(neuron)

    return change


def _input(neuron: QuantizedNeuron, peak: float) -> Iterator[Remedy]:
    def change_to(bits: int | None, limit: float | None) -> Change:
        def change(n: QuantizedNeuron) -> None:
            for synapse in _reading(n):
                assert synapse.input_format is not None and synapse.input_scale is not None
                reach = limit if limit is not None else float(synapse.input_scale) * synapse.input_format.max
                input_bits(synapse, bits if bits is not None else synapse.input_format.bits, reach)
            n.choose_fraction_bits(None, "")

        return change

    fmt = _reading(neuron)[0].input_format
    assert fmt is not None
    yield "input.limit", f"{peak:.4g}", change_to(None, peak)
    for bits in range(fmt.bits + 1, 13):
        yield "input.bits", str(bits), change_to(bits, None)


def _reading(neuron: QuantizedNeuron) -> list[Synapse]:
    return [b.synapse for b in neuron.branches if b.synapse.input_format is not None]


def _leak(neuron: QuantizedNeuron) -> Iterator[Remedy]:
    if neuron.choice.leak is not None:
        yield "leak.quantizer", "none", partial(_set, leak=None)
    if neuron.choice.leak_rounding is not None:
        yield "leak.rounding", "none", partial(_set, leak_rounding=None)
    for bits in range(neuron.choice.leak_bits + 1, MOST_BITS + 1):
        yield "leak.bits", str(bits), partial(_set, leak_bits=bits, leak=None)


def _set(neuron: QuantizedNeuron, **fields: Any) -> None:
    neuron.choice = replace(neuron.choice, **fields)
    neuron.choose_fraction_bits(None, "")


def _fraction_bits(neuron: QuantizedNeuron) -> Iterator[Remedy]:
    for bits in range(neuron.fraction_bits + 1, 25):
        yield "fraction_bits", str(bits), partial(_set_fraction_bits, bits=bits)


def _set_fraction_bits(neuron: QuantizedNeuron, bits: int) -> None:
    neuron.choose_fraction_bits(bits, "")


def _tensor(role: str, neuron: QuantizedNeuron) -> Iterator[Remedy]:
    now = getattr(neuron.choice, role)
    if now is None:
        return
    for bits in range(now.bits + 1, MOST_BITS + 1):
        if isinstance(now, Uniform):
            yield f"{role}.bits", str(bits), _quantized(role, replace(now, bits=bits))
    yield role, "not asked for", _quantized(role, None)


def _quantized(role: str, quantizer: Quantizer | None) -> Change:
    fields: dict[str, Any] = {role: quantizer}
    return lambda neuron: _set(neuron, **fields)


@torch.no_grad()
def off_grid(neuron: QuantizedNeuron, role: str) -> tuple[int, int]:
    """How many thresholds, or biases, their quantizer moves by more than a tenth, and how many there are."""
    kept = neuron.choice
    after = neuron.value("threshold") if role == "threshold" else neuron.real_bias()
    neuron.choice = replace(kept, threshold=None, bias=None)
    before = neuron.value("threshold") if role == "threshold" else neuron.real_bias()
    neuron.choice = kept
    if before is None or after is None:
        return 0, 0
    return int(((after - before).abs() > 0.1 * before.abs()).sum()), before.numel()

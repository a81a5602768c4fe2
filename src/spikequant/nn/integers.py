"""How the real values of a neuron group become integers while they can still move.

Straight-through functions of the scale, in float64.  `freeze` stores their result once;
no other place computes a threshold, a reset, a bias or a leak again (DESIGN rules 1, 2, 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikequant.law.rounding import NOISE_BITS
from spikequant.law.spec import NeuronSpec, StateFormat
from spikequant.nn.branch import Register
from spikequant.nn.chip import leak_value, on_chip, with_chip
from spikequant.nn.membrane_levels import level_params
from spikequant.quantizers import Quantizer, ceil_ste, floor_ste, round_ste

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron

MOST_SHIFT = 48
ADAPTATION_BITS = 28
ADAPTATION_LEAK_BITS = 24
ADAPTATION_REACH = 16  # thresholds
WIDE_REACH = 32.0
"""Thresholds that a register which the plan does not ask for holds at least."""


def integer_params(neuron: QuantizedNeuron, spec: NeuronSpec, lsb: Tensor) -> dict[str, Tensor]:
    """All parameters of the law for one group, ``[C]`` or scalars that hold integers."""
    params: dict[str, Tensor] = {}
    if "threshold" in neuron.value_names:
        params.update(_thresholds(neuron, lsb))
    for name in ("leak", "leak2", "leak_i", "leak_a"):
        if name in neuron.value_names:
            leak = getattr(spec, name.replace("leak2", "leak"))
            params[name] = _leak_integer(leak_value(neuron, name), leak.form, leak.bits, lsb)
    for state, register in (("v", spec.v), ("i", spec.i), ("x", spec.x)):
        if register is not None:
            exponent = store_exponent(neuron, state, register, spec, lsb)
            params[f"{state}_shift"], params[f"{state}_load"] = exponent, torch.exp2(exponent)
    if spec.v is not None and spec.v.levels:
        params.update(level_params(neuron, spec.v, lsb * params["v_load"]))
    if spec.a is not None:
        params.update(_adaptation(neuron, spec.a, lsb))
    if "floor" in neuron.value_names:
        params["floor"] = round_ste(neuron.value("floor") / lsb, "half_even")
    if "v_bias" in neuron.value_names:
        params["v_bias"] = round_ste(neuron.value("v_bias") / lsb, "half_even")
    bias = neuron.real_bias()
    if bias is not None:
        params["bias"] = round_ste(bias / lsb, "half_even")
    return on_chip(neuron, params)


def _thresholds(neuron: QuantizedNeuron, lsb: Tensor) -> dict[str, Tensor]:
    """Compare and reset are two numbers (DESIGN rule 1)."""
    theta = neuron.value("threshold") / lsb
    compared = neuron.compared_threshold() / lsb
    params = {"theta": ceil_ste(compared) if neuron.real_spec.compare == ">=" else floor_ste(compared) + 1}
    if neuron.real_spec.reset == "subtract":
        amount = theta if "reset_by" not in neuron.value_names else neuron.value("reset_by") / lsb
        params["reset"] = round_ste(amount, "half_even")
    elif neuron.real_spec.reset == "value":
        params["reset"] = round_ste(neuron.value("reset_to") / lsb, "half_even")
    return params


@torch.no_grad()
def wanted_exponent(neuron: QuantizedNeuron, state: str, register: StateFormat, lsb: Tensor) -> Tensor:
    """log2 of the accumulator LSBs that one code must count so that the register reaches its limit."""
    choice = {"v": neuron.choice.membrane, "i": neuron.choice.current, "x": neuron.choice.input}[state]
    if choice is not None and choice.unit == "weight":
        return round_ste(torch.log2(neuron.scale() / lsb), "half_even")
    limit = neuron.get_buffer(f"{state}_limit").to(torch.float64)
    limit = torch.where(limit > 0, limit, WIDE_REACH * neuron.default_limit())  # 0: a register that is kept wide
    return ceil_ste(torch.log2(limit / register.format.max / lsb) - 1e-9)


@torch.no_grad()
def store_exponent(neuron: QuantizedNeuron, state: str, register: StateFormat, spec: NeuronSpec, lsb: Tensor) -> Tensor:
    """The same, not finer than the exact product of the leak allows; 0 where a chip's codes count LSBs."""
    if neuron.choice.counts_lsb:
        return torch.zeros_like(lsb)
    leak = {"v": spec.leak, "i": spec.leak_i, "x": None}[state]
    exact = leak is not None and leak.form == "multiply" and leak.rounding is None
    least = leak.bits if exact and leak is not None else 0
    most = NOISE_BITS - least if register.rounding == "stochastic" else MOST_SHIFT
    return wanted_exponent(neuron, state, register, lsb).clamp(least, max(most, least))


def _adaptation(neuron: QuantizedNeuron, register: StateFormat, lsb: Tensor) -> dict[str, Tensor]:
    """The adaptive threshold's LSB: as fine as its register allows, or coarser than the accumulator's where it must."""
    with torch.no_grad():
        limit = ADAPTATION_REACH * neuron.value("threshold").abs().max()
        exponent = floor_ste(torch.log2(register.format.max / (limit / lsb))).clamp(-MOST_SHIFT, MOST_SHIFT)
    params = {
        "a_shift": exponent.clamp_min(0),
        "adapt": round_ste(neuron.value("adapt") / lsb * torch.exp2(exponent), "half_even"),
    }
    if bool((exponent < 0).any()):
        params["a_load"] = torch.exp2((-exponent).clamp_min(0))
    return params


def _leak_integer(leak: Tensor, form: str, bits: int, lsb: Tensor) -> Tensor:
    if form == "multiply":
        return round_ste(leak * 2.0**bits, "half_even")
    if form in ("constant", "constant_signed"):
        return round_ste(leak / lsb, "half_even")
    return round_ste(leak, "half_even")


def integer_spec(neuron: QuantizedNeuron) -> NeuronSpec:
    """The real spec with the widths, roundings and places of narrowing that the plan chose."""
    real, choice = neuron.real_spec, neuron.choice
    order = list(real.order)
    if choice.narrow_before_fire and "fire" in order:
        order.insert(order.index("fire"), "narrow")
    if choice.input is not None:
        order.insert(0, "narrow_input")
    changes: dict[str, Any] = {
        "order": tuple(order),
        "compare": ">=",
        "fraction_bits": neuron.fraction_bits,
        "v": choice.membrane.state_format(),
        "x": choice.input.state_format() if choice.input is not None else None,
    }
    if real.has_current:
        changes["i"] = (choice.current or choice.membrane).state_format()
    if real.has_adaptation:
        register = choice.adaptation or Register(bits=ADAPTATION_BITS, signed=False, rounding="half_even")
        changes["a"] = register.state_format()
    changes.update(_leaks(neuron, real))
    return with_chip(real.replace(**changes), choice.chip)


def _leaks(neuron: QuantizedNeuron, real: NeuronSpec) -> Mapping[str, Any]:
    changes: dict[str, Any] = {}
    for name in ("leak", "leak_i", "leak_a"):
        leak = getattr(real, name)
        if leak is not None and leak.form == "multiply":
            most = ADAPTATION_LEAK_BITS if name == "leak_a" else neuron.choice.leak_bits
            bits = ADAPTATION_LEAK_BITS if name == "leak_a" else leak_bits(neuron.value(name).detach(), most)
            rounding = None if name == "leak_a" else neuron.choice.leak_rounding
            changes[name] = type(leak)(form="multiply", bits=bits, rounding=rounding)
    return changes


def leak_bits(leak: Tensor, most: int) -> int:
    """Fewest fraction bits that hold `leak` exactly, at most `most`.

    >>> leak_bits(torch.tensor(0.75, dtype=torch.float64), 8), leak_bits(torch.tensor(0.9, dtype=torch.float64), 8)
    (2, 8)
    """
    for bits in range(most):
        scaled = leak * 2.0**bits
        if bool((scaled == round_ste(scaled, "half_even")).all()):
            return bits
    return most


def on_grid(quantizer: Quantizer, value: Tensor) -> Tensor:
    """`value` on the grid of its role's quantizer, straight-through."""
    flat = value.reshape(-1)
    scale = quantizer.fit(flat.detach())
    return (quantizer.codes(flat, scale) * scale).reshape(value.shape)

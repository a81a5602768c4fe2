"""What a chip fixes of a neuron group, so that no plan and no calibration moves it; and how values take its grids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikequant.law.spec import Leak, NeuronSpec, Phase
from spikequant.quantizers import round_ste

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron

MOST_DASH = 15


@dataclass(frozen=True, kw_only=True)
class ChipRule:
    """One neuron group on one target.

    Attributes:
        target: ``xylo/1``: what the lowered network says it follows.
        order: phases of the integer spec; None: those of the real neuron.
        fraction_bits: of the accumulator; None: chosen as usual.
        counts_lsb: one code of a state is one accumulator LSB.
        leak, leak_i: forms of the decays; None: multiplication, as the plan says.
        theta_unit, theta_offset: compare thresholds are ``theta_offset + theta_unit * m``.
        one_threshold: a soft reset subtracts the compare threshold.
        bias_bits: a bias is a mantissa of so many bits times a power of two, and is added to the membrane.
        decays_input: the current decays in the step in which its input arrives, so weights are divided by its decay.
        accumulator_bits: most bits of an intermediate.
    """

    target: str
    order: tuple[Phase, ...] | None = None
    fraction_bits: int | None = None
    counts_lsb: bool = False
    leak: Leak | None = None
    leak_i: Leak | None = None
    theta_unit: int = 1
    theta_offset: int = 0
    one_threshold: bool = False
    bias_bits: int | None = None
    decays_input: bool = False
    accumulator_bits: int | None = None


def chip_from_dict(record: dict[str, Any] | None) -> ChipRule | None:
    """A rule from its JSON-able record."""
    if record is None:
        return None
    fields = dict(record)
    fields["order"] = None if fields["order"] is None else tuple(fields["order"])
    for name in ("leak", "leak_i"):
        fields[name] = None if fields[name] is None else Leak(**fields[name])
    return ChipRule(**fields)


def with_chip(spec: NeuronSpec, rule: ChipRule | None) -> NeuronSpec:
    """The integer spec with the order and the decays of the chip."""
    if rule is None:
        return spec
    order = spec.order if rule.order is None else rule.order
    leak = rule.leak if rule.leak is not None and spec.leak.form != "none" else spec.leak
    leak_i = rule.leak_i if rule.leak_i is not None and spec.leak_i is not None else spec.leak_i
    return replace(spec, order=order, leak=leak, leak_i=leak_i)


def dash(leak: Tensor) -> Tensor:
    """The shift whose decay ``1 - 2^-d`` is nearest to `leak` in its logarithm, 0 to 15.

    >>> dash(torch.tensor([0.5, 0.9, 0.97, 1.0])).tolist()
    [1.0, 3.0, 5.0, 15.0]
    """
    return round_ste(-torch.log2((1.0 - leak).clamp_min(2.0**-MOST_DASH)), "half_even").clamp(0, MOST_DASH).detach()


def leak_value(neuron: QuantizedNeuron, name: str) -> Tensor:
    """A leak as the integer spec reads it: a factor, or the shift of a chip that has no factors."""
    rule, value = neuron.choice.chip, neuron.value(name)
    chosen = None if rule is None else getattr(rule, name, None)
    if chosen is None or chosen.form == "multiply" or getattr(neuron.real_spec, name).form != "multiply":
        return value
    return dash(value)


def input_gain(neuron: QuantizedNeuron) -> Tensor | float:
    """What a value of the synapses is multiplied by, because the chip decays it before it arrives."""
    rule = neuron.choice.chip
    if rule is None or not rule.decays_input or "leak_i" not in neuron.sources:
        return 1.0
    kept = 1.0 - torch.exp2(-dash(neuron.value("leak_i")))
    return 1.0 / kept.clamp_min(2.0**-MOST_DASH)


def on_chip(neuron: QuantizedNeuron, params: dict[str, Tensor]) -> dict[str, Tensor]:
    """The integer parameters on the grids of the chip, straight-through."""
    rule = neuron.choice.chip
    if rule is None:
        return params
    found = dict(params)
    if "theta" in found and (rule.theta_unit > 1 or rule.theta_offset):
        steps = round_ste((found["theta"] - rule.theta_offset) / rule.theta_unit, "half_even")
        found["theta"] = steps.clamp_min(0) * rule.theta_unit + rule.theta_offset
    if rule.one_threshold and "reset" in found:
        found["reset"] = found["theta"]
    if rule.bias_bits is not None and "bias" in found:
        found["v_bias"] = _with_exponent(found.pop("bias") + found.get("v_bias", 0.0), rule.bias_bits)
    return found


def _with_exponent(value: Tensor, bits: int) -> Tensor:
    """Mantissas of `bits` bits times the least power of two that holds them all."""
    most = float(value.detach().abs().max())
    exponent = 0
    while most > (2 ** (bits - 1) - 1) * 2.0**exponent:
        exponent += 1
    step = 2.0**exponent
    return round_ste(value / step, "half_even") * step

"""The network of spikequant: float, quantized for training, and as integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikequant.bench.parts import LEAK, Parts, Timed
from spikequant.law.network import IntNet
from spikequant.nn import LIF, Surrogate
from spikequant.plan import Plan
from spikequant.quantize import freeze, lower, quantize_


def float_parts() -> Parts:
    """Plain torch layers and our neurons."""
    return Parts(lambda: LIF(leak=LEAK, surrogate=Surrogate("atan", 2.0), detach_reset=True))


def plan(weight_bits: int, membrane_bits: int) -> Plan:
    """Uniform weights and membranes."""
    return Plan.uniform(weight_bits=weight_bits, membrane_bits=membrane_bits, membrane_rounding="half_even")


def quantized(net: Timed, x: Tensor, weight_bits: int, membrane_bits: int) -> Timed:
    """The same network with quantized weights and membranes, ready to train."""
    net.eval()
    quantize_(net, plan(weight_bits, membrane_bits), _two(_two(x, 1)[:, :2], 0), quiet=True)
    return net


def _two(x: Tensor, axis: int) -> Tensor:
    """At least two along an axis: time and batch of one step or one sample cannot be told apart."""
    return torch.cat([x, x], axis) if x.shape[axis] == 1 else x


def integers(net: Timed, x: Tensor) -> IntNet:
    """What would be shipped."""
    net.eval()
    freeze(net)
    with torch.no_grad():
        found: Any = lower(net, x[:, :2])
    assert isinstance(found, IntNet)
    return found

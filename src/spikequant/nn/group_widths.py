"""The integers of a neuron group, and the proof that the simulation can carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spikequant.law.bounds import Interval, StepBounds, prove_step
from spikequant.law.errors import WidthError
from spikequant.law.formats import IntArray
from spikequant.law.spec import NeuronSpec

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron

SINGLE_BITS, DOUBLE_BITS = 24, 53
ROOM = 16
"""Share of a parameter by which it may move before its widths are proven anew."""
MOST_GROUPS = 64
INPUT = "input"


@dataclass
class Integers:
    """The integers of a group, as float64 tensors that hold integers (or are learned through)."""

    spec: NeuronSpec
    params: dict[str, Tensor]
    lsb: Tensor
    gains: list[Tensor] = field(default_factory=list)


def prove_group(neuron: QuantizedNeuron, found: Integers, *, reach: bool) -> StepBounds:
    """Widths of one step of a group, from the widths of its registers and the L1 bound of its codes.

    Raises:
        WidthError: an intermediate needs more bits than a double holds.
    """
    params = {k: v.detach().to(torch.int64).numpy(force=True) for k, v in found.params.items()}
    most = _most(neuron, found)
    bounds = prove_step(found.spec, params, -most, most, where=neuron.path, check_reach=reach)
    if bounds.accumulator_bits > DOUBLE_BITS:
        raise WidthError(
            f"{neuron.path}: an intermediate needs {bounds.accumulator_bits} bits, the simulation carries "
            f"{DOUBLE_BITS}; use fewer fraction, leak or state bits, or, if a learned scale collapsed, a smaller "
            "rate of the scales (training.parameter_groups)"
        )
    return bounds


def _most(neuron: QuantizedNeuron, found: Integers) -> IntArray:
    """The L1 bound of the input of each channel, in accumulator LSBs."""
    high = torch.zeros_like(found.lsb)
    for branch, gain in zip(neuron.branches, found.gains, strict=True):
        high = high + branch.synapse.reach() * gain.detach().abs() * (branch.synapse.input_bound / branch.pool_unit)
    return high.detach().to(torch.int64).numpy(force=True)


@dataclass(frozen=True, eq=False)
class Proven:
    """Widths that were proven for more than the integers of then: for parameters between two ends.

    Attributes:
        ends: of each parameter by name, and of the input (`INPUT`), channel by channel.
    """

    spec: NeuronSpec
    ends: Mapping[str, tuple[IntArray, IntArray]]

    def holds(self, spec: NeuronSpec, values: Mapping[str, IntArray]) -> bool:
        """Whether these integers lie between the ends."""
        if set(values) != set(self.ends) or spec != self.spec:
            return False
        pairs = [(value, *self.ends[name]) for name, value in values.items()]
        return all(
            value.shape == low.shape and bool((value >= low).all() and (value <= high).all())
            for value, low, high in pairs
        )


def proven_single(neuron: QuantizedNeuron, found: Integers, before: Proven | None) -> Proven | None:
    """A proof that float32 holds every intermediate of a step: the one from before, a new one, or None.

    The new one is over a few groups of channels with equal shifts, whose other parameters are intervals, a little wider
    than they are: training moves them.  It may miss what `prove_group` shows, never the other way round.
    """
    values = {k: v.detach().to(torch.int64).reshape(-1).numpy(force=True) for k, v in found.params.items()}
    values[INPUT] = _most(neuron, found).reshape(-1)
    if before is not None and before.holds(found.spec, values):
        return before
    channels = max(value.size for value in values.values())
    if any(value.size not in (1, channels) for value in values.values()):
        return None
    ends = {name: _ends(name, value) for name, value in values.items()}
    group = np.zeros(channels, dtype=np.int64)
    for name, value in values.items():
        if _is_shift(name) and value.size > 1:
            _, kind = np.unique(value, return_inverse=True)
            _, group = np.unique(group * channels + kind, return_inverse=True)
    if int(group.max()) >= MOST_GROUPS:
        return None
    groups = [group == key for key in range(int(group.max()) + 1)]
    known = {
        name: Interval(_extreme(np.minimum, low, groups), _extreme(np.maximum, high, groups))
        for name, (low, high) in ends.items()
    }
    drive = known.pop(INPUT)
    try:
        bounds = prove_step(found.spec, known, -drive.high, drive.high, check_reach=False)
    except WidthError:
        return None
    return Proven(found.spec, ends) if bounds.accumulator_bits <= SINGLE_BITS else None


def _ends(name: str, value: IntArray) -> tuple[IntArray, IntArray]:
    """Around a parameter; what shifts or is a power of two is taken as it is."""
    room = np.zeros_like(value) if _is_shift(name) or name.endswith("_load") else np.abs(value) // ROOM + 1
    return value - room, value + room


def _is_shift(name: str) -> bool:
    return name.endswith("_shift") or name.startswith("leak")


def _extreme(word: np.ufunc, value: IntArray, groups: Sequence[IntArray]) -> IntArray:
    """The least or largest value of each group."""
    if value.size == 1:
        return value
    return np.array([word.reduce(value[group]) for group in groups])

"""Levels of a membrane that lie anywhere: a table in real units, and its integers in a register's own.

A state is stored as the number of one of ``2^bits`` levels, ascending, one of them 0.  It takes the highest level
whose cut it reaches.  Levels and cuts are real numbers of a layer, as shares of the reach of its register, where
they become integers of 8 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikequant.law.spec import StateFormat
from spikequant.quantizers import ceil_ste, round_ste

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron


def starting_table(bits: int, table: tuple[float, ...] = ()) -> dict[str, Tensor]:
    """Levels and cuts before `calibrate`: those of `table`, else two's complement up to the reach; nearest.

    >>> {name: values.tolist() for name, values in starting_table(2).items()}
    {'v_levels': [-1.0, -0.5, 0.0, 0.5], 'v_cuts': [-0.75, -0.25, 0.25]}
    """
    half = 2 ** (bits - 1)
    levels = torch.tensor(table or [k / half for k in range(-half, half)], dtype=torch.float64)
    return {"v_levels": levels, "v_cuts": (levels[1:] + levels[:-1]) / 2}


@torch.no_grad()
def level_params(neuron: QuantizedNeuron, register: StateFormat, unit: Tensor) -> dict[str, Tensor]:
    """``v_level0``, ``v_cut1``, ``v_rise1``, ...: the table in codes that are worth `unit` each, per channel."""
    assert neuron.v_levels is not None
    assert neuron.v_cuts is not None
    low, high = register.format.min, register.format.max
    code = neuron.v_limit.to(torch.float64) / unit
    levels = [round_ste(level * code, "half_even").clamp(low, high) for level in neuron.v_levels]
    cuts = [ceil_ste(cut * code - 1e-9).clamp(low, high + 1) for cut in neuron.v_cuts]
    params = {"v_level0": levels[0]}
    for k, (cut, below, above) in enumerate(zip(cuts, levels[:-1], levels[1:], strict=True), start=1):
        params |= {f"v_cut{k}": cut, f"v_rise{k}": above - below}
    return params

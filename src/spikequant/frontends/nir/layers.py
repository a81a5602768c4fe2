"""The torch layer of each node."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.frontends.nir.dynamics import Choices, collapsed, make_neuron
from spikequant.frontends.nir.graph import FlatGraph
from spikequant.frontends.nir.shapes import conv_options, flat_axes, pool_options
from spikequant.law.errors import DataError, Unsupported
from spikequant.nn import Delay, Surrogate
from spikequant.readers.nir_.records import NEURONS, NirNode

MOST_DIAGONAL = 4096


def make_layer(
    flat: FlatGraph, name: str, choices: Choices, surrogate: Surrogate | None, outside: set[str]
) -> nn.Module | None:
    """The layer of a node; None for what only passes on what it gets."""
    node, shape = flat.nodes[name], flat.shapes[name]
    kind, got = node.kind, flat.shapes[flat.into(name)[0].source] if flat.into(name) else shape
    if kind in NEURONS:
        return make_neuron(name, node, shape, choices, surrogate, gain_outside=name in outside)
    if kind in ("Affine", "Linear"):
        return _weighted(name, nn.Linear(got[0], shape[0], bias=kind == "Affine"), node)
    if kind in ("Conv1d", "Conv2d"):
        make = nn.Conv1d if kind == "Conv1d" else nn.Conv2d
        kernel, options = node.fields["weight"].shape[2:], conv_options(name, node)
        return _weighted(name, make(got[0], shape[0], kernel, bias=not _pools_no_bias(flat, name), **options), node)
    if kind in ("SumPool2d", "AvgPool2d"):
        pooling: dict[str, Any] = {**pool_options(name, node)}
        return nn.AvgPool2d(**pooling, divisor_override=1 if kind == "SumPool2d" else None)
    if kind == "Flatten":
        first, last = flat_axes(name, node, len(got))
        return nn.Flatten(first + 1, last + 1)
    if kind == "Scale":
        return _diagonal(name, node, shape)
    if kind == "Delay":
        steps = node.fields["steps"] - max(edge.delay for edge in flat.into(name))
        return Delay(steps, step_mode="s") if steps else None
    return None


def _pools_no_bias(flat: FlatGraph, name: str) -> bool:
    """Whether a pooling of currents follows that no bias may pass: NIR's Conv always has one, often of zeros."""
    pools = any(flat.kind(edge.target) in ("SumPool2d", "AvgPool2d") for edge in flat.out_of(name))
    return pools and not bool(np.any(flat.nodes[name].fields["bias"]))


def _weighted(name: str, layer: Any, node: NirNode) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(_tensor(f"{name}.weight", node.fields["weight"]))
        if layer.bias is not None:
            layer.bias.copy_(_tensor(f"{name}.bias", node.fields["bias"]).reshape(-1))
    made: nn.Module = layer
    return made


def _tensor(where: str, values: Any) -> Tensor:
    """Numbers in the type of the layers; raises where they do not fit."""
    found = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(torch.get_default_dtype())
    if not bool(torch.isfinite(found).all()):
        raise DataError(f"{where}: its largest value is {np.abs(values).max():g}, which float32 cannot hold")
    return found


def _diagonal(name: str, node: NirNode, shape: tuple[int, ...]) -> nn.Module:
    """One weight per channel and no sums: a diagonal matrix, or a depthwise convolution of one pixel."""
    factor = collapsed(f"{name}.scale", node.fields["scale"], shape).expand(shape[0])
    if len(shape) > 3 or (len(shape) == 1 and shape[0] > MOST_DIAGONAL):
        raise Unsupported(
            f"{name}: a factor for each of the values {shape} with no layer of weights beside it; "
            f"expected [N] with at most {MOST_DIAGONAL:,} values (here {math.prod(shape):,}), [C, L] or [C, H, W]"
        )
    if len(shape) == 1:
        layer: Any = nn.Linear(shape[0], shape[0], bias=False)
        weight = torch.diag(factor)
    else:
        make = nn.Conv1d if len(shape) == 2 else nn.Conv2d
        layer = make(shape[0], shape[0], 1, groups=shape[0], bias=False)
        weight = factor.reshape(layer.weight.shape)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)  # training must not fill the zeros
    made: nn.Module = layer
    return made

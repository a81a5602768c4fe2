"""Brevitas layers inside a spiking network: their weights are integers already and are read, not quantized twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikequant.frontends.library import Library, Reading, refuse
from spikequant.law.errors import Unsupported
from spikequant.nn import WeightGrid
from spikequant.quantizers import Uniform

LAYERS: dict[str, type[nn.Module]] = {"QuantLinear": nn.Linear, "QuantConv1d": nn.Conv1d, "QuantConv2d": nn.Conv2d}
QUANTIZED_VALUES = ("input_quant", "output_quant", "bias_quant")
LEFT_OUT = ("QuantIdentity", "QuantReLU", "QuantHardTanh", "QuantSigmoid", "QuantTanh")


def read(path: str, module: nn.Module) -> Reading | None:
    """A weighted layer as plain torch with the bits and the scale that its weights have; None for a container."""
    kind = next(k for k in type(module).__mro__ if k.__module__.partition(".")[0] == "brevitas").__name__
    if kind in LEFT_OUT:
        why = "activations between spiking layers are spikes; leave the layer out and give the bits to the plan"
        raise Unsupported(f"{path}: Brevitas' {kind}: {why}")
    if kind not in LAYERS:
        if any(True for _ in module.parameters(recurse=False)):
            raise Unsupported(f"{path}: Brevitas' {kind} is not known; expected {', '.join(LAYERS)}")
        return None
    for name in QUANTIZED_VALUES:
        if getattr(getattr(module, name, None), "is_quant_enabled", False):
            why = "the sums of a spiking layer are exact and need no quantizer; build the layer without it"
            raise refuse(path, name, "on", why)
    source: Any = module
    if not source.weight_quant.is_quant_enabled:
        return Reading(module=plain(source, LAYERS[kind], None))
    with torch.no_grad():
        found = source.quant_weight()
    return Reading(module=plain(source, LAYERS[kind], grid_of(path, source, found)))


def grid_of(path: str, module: Any, found: Any) -> WeightGrid:
    """The quantizer of ours that gives the very codes of a Brevitas weight, now and while it trains."""
    why = "expected signed integers around 0 whose scale follows the largest weight, as Int8WeightPerTensorFloat has"
    if bool((found.zero_point != 0).any()) or not found.signed:
        raise refuse(path, "weight_quant", "asymmetric", why)
    grid = WeightGrid(Uniform(int(found.bit_width)), per_channel=found.scale.numel() > 1, library="Brevitas")
    weight = module.weight.detach()
    scale = grid.quantizer.fit(weight, channel_axis=0 if grid.per_channel else None)
    same = torch.equal(grid.quantizer.codes(weight, scale), found.int().to(weight.dtype))
    if not same or not torch.allclose(scale.reshape(-1), found.scale.detach().reshape(-1), rtol=1e-5):
        raise refuse(path, "weight_quant", type(module.weight_quant).__name__, why)
    return grid


def plain(module: Any, kind: type[nn.Module], grid: WeightGrid | None) -> nn.Module:
    """A torch layer with the very parameters of a Brevitas layer."""
    shapes = (
        {"in_features": module.in_features, "out_features": module.out_features}
        if kind is nn.Linear
        else {n: getattr(module, n) for n in ("in_channels", "out_channels", "kernel_size", "stride", "padding")}
        | {n: getattr(module, n) for n in ("dilation", "groups", "padding_mode")}
    )
    layer = kind(**shapes, bias=module.bias is not None, device="meta")
    layer.weight, layer.bias = module.weight, module.bias
    if grid is not None:
        layer.__dict__["weight_grid"] = grid
    return layer


def run(module: nn.Module, x: Tensor) -> Tensor:
    """The layer's output at every step."""
    return torch.stack([module(step) for step in x])


def reset(module: nn.Module) -> None:
    """Nothing: a weighted layer has no state."""


LIBRARY = Library(name="Brevitas", read=read, run=run, reset=reset)

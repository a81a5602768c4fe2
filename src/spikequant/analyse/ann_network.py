"""A spiking network without spikes and time: the same layers with ReLU, read off its graph."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from spikequant.capture import Graph, GraphNode, LayerwiseRunner
from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntFormat
from spikequant.nn import ENCODERS, NORMS, SYNAPSES, Delay, FoldedNorm, NeuronLayer, Normalize, Synapse
from spikequant.nn.copying import copied
from spikequant.nn.torch_ops import encode_ste
from spikequant.quantizers import LSQ, MSEClipping, Quantizer, Uniform

MOST_SEEN = 200_000
"""Activations of a layer from which its first scale is fitted."""


@final
class QuantizedReLU(nn.Module):
    """``ReLU`` until it has a scale, then clipped and on a grid of `bits` bits: ``s * clip(round(x / s), 0, 2^b - 1)``.

    The scale is fitted by mean square error and learned as in LSQ.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.quantizer = LSQ(bits, signed=False)
        self.scale: nn.Parameter | None = None
        self.seen: list[Tensor] | None = None

    def fit_scale(self) -> None:
        """Choose the scale for the activations that were collected in `seen`."""
        values = torch.cat([part.flatten() for part in self.seen or []])
        step = max(1, len(values) // MOST_SEEN)
        grid = Uniform(self.quantizer.bits, signed=False, clipping=MSEClipping())
        self.scale, self.seen = nn.Parameter(grid.fit(values[::step])), None

    def forward(self, x: Tensor) -> Tensor:
        """The activations of a layer."""
        if self.scale is None:
            out = torch.relu(x)
            if self.seen is not None:
                self.seen.append(out.detach())
            return out
        scale = self.quantizer.graph_scale(self.scale, x)
        return self.quantizer.codes(x, scale) * scale


@final
class StaticNetwork(nn.Module):
    """The graph of a spiking network over one step: `body` holds its layers under their old paths.

    Attributes:
        graph: the same nodes, none of them over time.
        grid: scale and integers of the quantized input, or None.
        activations: names of the nodes where a neuron layer became a ReLU.
    """

    def __init__(
        self, body: nn.Module, graph: Graph, *, grid: tuple[Tensor, IntFormat] | None, activations: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.body, self.graph, self.grid, self.activations = body, graph, grid, activations
        self.is_quantized = False
        self._runner = LayerwiseRunner(body, graph)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[N, classes]``."""
        if self.grid is not None:
            scale, fmt = self.grid
            x = encode_ste(x, scale, fmt.min, fmt.max) * scale
        return self._runner(x)

    def layers(self, *kinds: type[nn.Module]) -> dict[str, Any]:
        """Layers of some kinds in the order in which they run."""
        found = {node.path: self.body.get_submodule(node.path) for node in self.graph.nodes if node.path}
        return {path: module for path, module in found.items() if isinstance(module, kinds)}

    def quantize_(self, quantizers: Mapping[str, tuple[Quantizer, bool]], batches: Any) -> None:
        """Weights on their grids, then scales of the activations, then batch norm anew, all from `batches`."""
        for path, layer in self.layers(*SYNAPSES).items():
            quantizer, per_channel = quantizers[path]
            synapse = Synapse(layer, quantizer, per_channel=per_channel)
            synapse.readout_bits = 24  # its bias is rounded, but far below any activation's step
            self.body.set_submodule(path, synapse)
        relus = self.layers(QuantizedReLU).values()
        for relu in relus:
            relu.seen = []
        self.eval()
        with torch.no_grad():
            for x in batches:
                self(x)
            for relu in relus:
                relu.fit_scale()
            self._measure_norms(batches)
        self.is_quantized = True

    def _measure_norms(self, batches: Any) -> None:
        norms = list(self.layers(*NORMS).values())
        kept = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        if norms:
            for x in batches:
                self(x)
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.eval()


def static_network(model: nn.Module, graph: Graph, *, activation_bits: int) -> StaticNetwork:
    """The layers of `model` with fresh weights, ReLU for neurons, no time.

    Raises:
        Unsupported: a network whose time cannot be taken away.
    """
    _check(model, graph)
    body = copied(model)
    activations = []
    for node in graph.nodes:
        if node.kind != "module":
            continue
        module = model.get_submodule(node.path)
        fires = isinstance(module, NeuronLayer) and module.neuron_spec.output == "spike"
        is_activation = fires and any(reader.kind != "state" for reader in graph.consumers(node.name))
        activations += [node.name] if is_activation else []
        body.set_submodule(node.path, _static(module, node, is_activation, activation_bits))
    nodes = tuple(
        replace(node, per_step=False, kind="reshape" if node.kind == "state" else node.kind) for node in graph.nodes
    )  # a membrane that is read out becomes the sums that flow into it
    still = replace(graph, nodes=nodes, steps=1, input_layout="static", output=replace(graph.output, reduction="last"))
    return StaticNetwork(body, still, grid=input_grid(model), activations=tuple(activations))


def input_grid(model: nn.Module) -> tuple[Tensor, IntFormat] | None:
    """Scale and integers of the model's quantized input; None where the input is whole numbers or real."""
    for module in model.modules():
        if isinstance(module, Synapse) and module.input_scale is not None and module.input_format is not None:
            return module.input_scale.clone(), module.input_format
    return None


def _check(model: nn.Module, graph: Graph) -> None:
    modules = [model.get_submodule(node.path) for node in graph.nodes if node.kind == "module"]
    encoded = any(isinstance(module, ENCODERS) for module in modules)
    reason = ""
    if graph.input_layout == "step":
        reason = "it does one step per call, and what is shown to it over time is not one input"
    elif graph.input_layout != "static" and not encoded:
        reason = "its input is a train of events, not one image that is shown at every step"
    elif any(edge.delay for node in graph.nodes for edge in node.inputs) or any(isinstance(m, Delay) for m in modules):
        reason = "it has recurrent or delayed connections, whose meaning lies in time"
    elif any(node.kind in ("iand", "product") for node in graph.nodes):
        reason = "it joins spikes by and / iand, which has no counterpart for activations"
    if reason:
        raise Unsupported(f"ann_baseline: no network without time stands beside this one: {reason}")


def _static(module: nn.Module, node: GraphNode, is_activation: bool, bits: int) -> nn.Module:
    if is_activation:
        return QuantizedReLU(bits)
    if isinstance(module, (NeuronLayer, *ENCODERS)):
        return nn.Identity()
    if isinstance(module, (Synapse, *SYNAPSES)):
        return _fresh(module)
    if isinstance(module, (FoldedNorm, *NORMS)):
        kind = nn.BatchNorm2d if len(node.shape) == 3 else nn.BatchNorm1d
        return kind(node.shape[0])
    still = copy.deepcopy(module)
    if isinstance(still, Normalize):
        still.folded = False
    return still


def _fresh(module: Any) -> nn.Module:
    """A real layer of the same shape with torch's default initial weights."""
    out, per_group, *kernel = module.weight.shape
    bias = module.bias is not None
    if not kernel:
        return nn.Linear(per_group, out, bias=bias)
    kind: Callable[..., nn.Module] = nn.Conv1d if len(kernel) == 1 else nn.Conv2d
    places = {name: tuple(getattr(module, name)) for name in ("stride", "padding", "dilation")}
    return kind(per_group * module.groups, out, tuple(kernel), groups=module.groups, bias=bias, **places)


def equivalent_bits(steps: int, spikes_max: int = 1) -> int:
    """Bits of an activation that tells apart as many values as spikes can be counted in `steps` steps.

    ``ceil(log2(steps * spikes_max + 1))``; the equivalence is argued in arXiv 2409.08290.

    >>> equivalent_bits(1), equivalent_bits(4), equivalent_bits(8)
    (1, 3, 4)
    """
    return math.ceil(math.log2(steps * spikes_max + 1))

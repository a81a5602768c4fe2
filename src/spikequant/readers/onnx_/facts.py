"""What the metadata of a model say: where it comes from, and what its tensors mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikequant.law.artifact import network_hash
from spikequant.law.network import IntNet
from spikequant.readers.onnx_.body import Step
from spikequant.readers.onnx_.nodes import Plan

FORMAT_VERSION = 1


def facts_of(net: IntNet, about: Plan, step: Step, form: str, opset: int, packed: bool) -> dict[str, Any]:
    """The record under the key ``spikequant`` of a model's metadata."""
    source, decoder = net.input, net.decoder
    return {
        "format": "onnx",
        "version": FORMAT_VERSION,
        "network": network_hash(net),
        "target": net.target,
        "form": form,
        "opset": opset,
        "packed": packed,
        "steps": net.steps,
        "input": {
            "name": "x",
            "shape": list(source.shape),
            "static": source.static,
            "scale": source.scale,
            "low": source.format.min,
            "high": source.format.max,
        },
        "decoder": {
            "name": decoder.name,
            "source": about.names[decoder.source],
            "scale": decoder.scale,
            "gains": None if decoder.gains is None else np.asarray(decoder.gains).reshape(-1).tolist(),
        },
        "layers": [_layer(net, about, k) for k in range(len(net.neurons))],
        "states": [port.name for port, _ in step.states],
        "noise": [_noise(net, *entry) for entry in step.noise],
    }


def _layer(net: IntNet, about: Plan, index: int) -> dict[str, Any]:
    node = net.neurons[index]
    formats = {name: fmt for name, fmt in node.spec.state_formats().items() if fmt is not None}
    return {
        "name": node.name,
        "tensor": about.names[node.name],
        "shape": list(node.shape),
        "scale": None if node.scale is None else np.asarray(node.scale, dtype=np.float64).reshape(-1).tolist(),
        "states": {name: {"bits": fmt.bits, "signed": fmt.signed} for name, fmt in formats.items()},
    }


def _noise(net: IntNet, node: str, state: str, port: Any) -> dict[str, Any]:
    """How the words of an input are computed: docs/semantics.md has the recipe."""
    layer = next(k for k, n in enumerate(net.neurons) if n.name == node)
    return {"input": port.name, "seed": net.neurons[layer].seed, "layer": layer, "state": state}

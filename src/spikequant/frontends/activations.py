"""What flows through the ReLUs of a float network: what can be converted, and histograms to fit thresholds on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spikequant.law.errors import DataError, Unsupported

BINS = 4096
CANDIDATES = 200
RELUS = (nn.ReLU, nn.ReLU6)
LINEAR = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.Flatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity,
)  # fmt: skip
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d)
FUNCTIONS = {
    "relu", "relu_", "relu6", "leaky_relu", "gelu", "silu", "sigmoid", "tanh", "softmax", "log_softmax", "elu",
    "softplus", "hardtanh", "clamp", "max_pool2d", "mish", "hardswish", "layer_norm", "scaled_dot_product_attention",
}  # fmt: skip


@dataclass(frozen=True)
class Activations:
    """Histogram of the positive activations of one layer: `counts` of `BINS` equal bins up to `largest`."""

    largest: float
    counts: npt.NDArray[np.int64]
    values: int

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Middle of each bin."""
        return np.linspace(0.0, self.largest, BINS, endpoint=False, dtype=np.float64) + self.largest / (2 * BINS)

    def least_error(self, steps: int) -> float:
        """The threshold with the least ``sum (a - theta / T * clip(floor(a T / theta + 1/2), 0, T))^2``."""
        a, best, least = self.centres, self.largest, np.inf
        for k in range(1, CANDIDATES + 1):
            theta = self.largest * k / CANDIDATES
            quotient = np.clip(np.floor(a * (steps / theta) + 0.5), 0, steps) * (theta / steps)
            error = float(np.dot(self.counts, (a - quotient) ** 2))
            if error < least:
                best, least = theta, error
        return best

    def share_above(self, theta: float) -> float:
        """Share of all activations, zeros counted, that are above `theta`."""
        return float(self.counts[self.centres > theta].sum()) / self.values


def check_layers(model: nn.Module) -> tuple[str, ...]:
    """Notes about what is approximate; raises on a network without a spiking form.

    Raises:
        Unsupported: a layer that is neither linear nor a ReLU, or no ReLU at all.
    """
    notes, relus = [], 0
    for path, module in model.named_modules():
        if isinstance(module, RELUS):
            relus += 1
        elif isinstance(module, MAXIMA):
            notes.append(
                f"{path}: the largest spike of a window stands for the spike of the largest, an error that does not "
                "fall with T; average pooling is exact"
            )
        elif not isinstance(module, LINEAR) and not list(module.children()):
            raise Unsupported(
                f"from_ann: {path} is a {type(module).__name__}; expected linear layers, batch norm, pooling and "
                "torch.nn.ReLU modules. Train the network with ReLU there"
            )
    if relus == 0:
        raise Unsupported(
            "from_ann: the network has no torch.nn.ReLU module; write activations as modules, not as F.relu"
        )
    return tuple(notes)


class _NoOtherActivation(TorchFunctionMode):
    """Refuses activation functions outside of modules: they would stay in the converted network, unseen."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if not self.inside and name in FUNCTIONS:
            raise Unsupported(
                f"from_ann: the forward pass calls the function {name}; make it a module (torch.nn.ReLU), so that "
                "spiking neurons can take its place"
            )
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def watch_activations(network: nn.Module, inputs: list[Tensor]) -> dict[str, Activations]:
    """Histograms of the outputs of every ReLU that the forward pass calls, in the order of the calls.

    Raises:
        Unsupported: a ReLU module that is called more than once in a pass.
    """
    paths = {module: path for path, module in network.named_modules() if isinstance(module, RELUS)}
    mode = _NoOtherActivation()
    calls: dict[str, int] = {}
    largest: dict[str, float] = {}
    parts: dict[str, list[Tensor]] = {}

    def enter(module: nn.Module, _inputs: object) -> None:
        mode.inside += 1

    def leave(module: nn.Module, _inputs: object, output: Tensor) -> None:
        mode.inside -= 1
        if module in paths:
            path = paths[module]
            calls[path] = calls.get(path, 0) + 1
            largest[path] = max(largest.get(path, 0.0), float(output.max()))
            parts.setdefault(path, []).append(output.flatten())

    leaves = [m for m in network.modules() if not list(m.children())]
    handles = [m.register_forward_pre_hook(enter) for m in leaves] + [m.register_forward_hook(leave) for m in leaves]
    try:
        with mode:
            for x in inputs:
                network(x)
    finally:
        for handle in handles:
            handle.remove()
    for path, count in calls.items():
        if count != len(inputs):
            raise Unsupported(
                f"from_ann: the module {path} is called {count // len(inputs)} times in a forward pass; a neuron has a "
                "state, so give every place a torch.nn.ReLU of its own"
            )
    return {path: _histogram(path, parts[path], largest[path]) for path in calls}


def _histogram(path: str, parts: list[Tensor], largest: float) -> Activations:
    if not np.isfinite(largest):
        raise DataError(f"from_ann: {path} gives NaN or infinite values on the calibration data")
    values = sum(part.numel() for part in parts)
    counts = np.zeros(BINS, dtype=np.int64)
    for part in parts:
        positive = part[part > 0].numpy(force=True)
        counts += np.histogram(positive, bins=BINS, range=(0.0, largest or 1.0))[0]
    return Activations(largest, counts, values)

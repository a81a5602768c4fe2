"""`from_ann`: a trained network of ReLU layers as a spiking network, by rates.

    relu(a)  ~  (theta / T) * number of spikes in T steps

A ReLU becomes an integrate-and-fire neuron with soft reset whose threshold `theta` is fitted on data and whose membrane
starts at ``theta / 2``.  Driven by a constant current ``a`` for T steps it fires
``clip(floor(a T / theta + 1/2), 0, T)`` times: the rounded quotient, at most ``theta / (2 T)`` away from
``clip(a, 0, theta)``.  Behind the first layer the current is a train and not constant, so that spikes can come
unevenly; what that costs is measured and reported.

Source: T. Bu et al., "Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks",
ICLR 2022 (quantization clip-floor-shift activation); here for networks that were trained with plain ReLU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from spikequant.frontends.activations import Activations, check_layers, watch_activations
from spikequant.law.errors import DataError
from spikequant.nn import IF
from spikequant.nn.reset import reset_states

ThresholdRule = Literal["mse", "max"]


@dataclass(frozen=True, kw_only=True)
class ConvertedLayer:
    """One ReLU that became a layer of neurons.

    ``bound``: ``theta / (2 T)``, the largest error of a neuron under constant current, below the
    clip.  ``error``: mean of ``|theta / T * spikes - relu(a)|`` on the calibration data, where
    ``a`` is the float network's own; ``size``: mean of ``relu(a)`` there; ``clipped``: share of
    activations above theta.
    """

    path: str
    theta: float
    bound: float
    error: float
    size: float
    clipped: float

    def __str__(self) -> str:
        relative = self.error / max(self.size, 1e-12)
        return (
            f"{self.path}: threshold {self.theta:.4g}, error {self.error:.3g} ({relative:.1%} of the mean activation; "
            f"bound under constant current {self.bound:.3g}), {self.clipped:.2%} clipped"
        )


@final
class RateCodedNetwork(nn.Module):
    """A converted network: the input is shown for `steps` steps, the outputs of the last layer are averaged.

    Input as the float network takes it, ``[N, ...]``; output ``[N, classes]``.  Every call starts from rest.

    Attributes:
        layers: what became of each ReLU, with the measured error.
        notes: what is approximate besides.
    """

    def __init__(self, network: nn.Module, steps: int) -> None:
        super().__init__()
        self.network, self.steps = network, steps
        self.layers: tuple[ConvertedLayer, ...] = ()
        self.notes: tuple[str, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Mean output over time."""
        reset_states(self.network)
        total: Any = 0
        for _ in range(self.steps):  # one line calls the network: a recording tells steps apart by lines
            total = total + self.network(x)
        mean: Tensor = total / self.steps
        return mean


def from_ann(
    model: nn.Module,
    calibration: Iterable[Any],
    *,
    steps: int = 16,
    threshold: ThresholdRule = "mse",
    max_batches: int | None = 8,
) -> RateCodedNetwork:
    """A spiking copy of a trained ReLU network; `model` itself is not touched.

    The result is an ordinary network of `spikequant.nn` neurons: `quantize_`, `fit`, `compare` and `lower` take it.
    Its `layers` state, for each former ReLU, the error bound at this T and the error that was measured.

    Args:
        model: convolutions, linear layers, batch norm, pooling, `nn.ReLU` modules (`nn.ReLU6` as well).
        calibration: ``(input, target)`` pairs or inputs, as `model` takes them.
        steps: T.  The bound falls as 1 / T.
        threshold: ``"mse"``: theta with the least squared error of the T-step quotient on the data; ``"max"``: the
            largest activation seen.
        max_batches: how many batches to look at.

    Raises:
        Unsupported: an activation that is no ReLU module, one module used in several places, or no ReLU at all.
        DataError: no batch, NaN, `steps` below 1, or a layer without any activity.
    """
    if steps < 1:
        raise DataError(f"from_ann: steps is {steps}; expected 1 or more")
    if threshold not in ("mse", "max"):
        raise DataError(f"from_ann: threshold is {threshold!r}; expected 'mse' or 'max'")
    if max_batches is not None and max_batches < 1:
        raise DataError(f"from_ann: max_batches={max_batches}; expected 1 or more, or None for all batches")
    inputs = [b[0] if isinstance(b, (tuple, list)) else b for b in islice(calibration, max_batches)]
    if not inputs or not all(bool(torch.isfinite(x).all()) for x in inputs):
        raise DataError("from_ann: calibration gave no batch, or one that holds NaN or infinite values")
    notes = check_layers(model)
    network = copy.deepcopy(model).eval()
    seen = watch_activations(network, inputs)
    thetas = {path: _theta(path, found, steps, threshold) for path, found in seen.items()}
    converted = RateCodedNetwork(copy.deepcopy(network), steps).eval()
    for path, theta in thetas.items():
        _replace(converted.network, path, theta)
    converted.layers = _measured(network, converted, inputs, seen, thetas)
    converted.notes = notes
    return converted.train(model.training)


def _theta(path: str, found: Activations, steps: int, rule: ThresholdRule) -> float:
    if found.largest == 0.0:
        raise DataError(
            f"from_ann: {path} is 0 on all of the calibration data, so that no threshold can be fitted; "
            "calibrate on data of the real distribution"
        )
    return found.largest if rule == "max" else found.least_error(steps)


def _replace(network: nn.Module, path: str, theta: float) -> None:
    parent, _, name = path.rpartition(".")
    neuron = IF(threshold=theta / 2, reset_by=theta, step_mode="s", spike_unit=theta)
    setattr(network.get_submodule(parent), name, neuron)


@torch.no_grad()
def _measured(
    network: nn.Module,
    converted: RateCodedNetwork,
    inputs: list[Tensor],
    seen: dict[str, Activations],
    thetas: dict[str, float],
) -> tuple[ConvertedLayer, ...]:
    """Mean output of each neuron layer over time against the ReLU that it replaced."""
    wanted: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    totals = {path: [0.0, 0.0, 0.0] for path in thetas}  # error, size, values

    def keep(path: str, store: dict[str, Tensor], add: bool) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            store[path] = store[path] + output if add and path in store else output.clone()

        return hook

    handles = [network.get_submodule(p).register_forward_hook(keep(p, wanted, False)) for p in thetas]
    handles += [converted.network.get_submodule(p).register_forward_hook(keep(p, sums, True)) for p in thetas]
    try:
        for x in inputs:
            sums.clear()
            network(x)
            converted(x)
            for path, total in totals.items():
                total[0] += float((sums[path] / converted.steps - wanted[path]).abs().sum())
                total[1] += float(wanted[path].sum())
                total[2] += wanted[path].numel()
    finally:
        for handle in handles:
            handle.remove()
        reset_states(converted)
    return tuple(
        ConvertedLayer(
            path=path,
            theta=theta,
            bound=theta / (2 * converted.steps),
            error=totals[path][0] / totals[path][2],
            size=totals[path][1] / totals[path][2],
            clipped=seen[path].share_above(theta),
        )
        for path, theta in thetas.items()
    )

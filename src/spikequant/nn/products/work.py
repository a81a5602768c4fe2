"""One exact product: its operands as they are, the paths that are proven for them, and how each runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikequant.law.errors import Unsupported
from spikequant.nn.products import byte_paths, choice, float_paths, kernels
from spikequant.nn.products.byte_input import ByteInput, as_bytes
from spikequant.nn.products.force import PATHS, forced
from spikequant.nn.products.geometry import Geometry
from spikequant.nn.products.proof import Widths, machine_of, refusals
from spikequant.nn.products.weights import Weights

BYTE_PATHS = {"int8_onednn": byte_paths.onednn, "int8_vnni": byte_paths.tiles, "events": byte_paths.events}
SMALL_WORK = 1 << 16
"""Products of operands below which any path but plain float32 costs more in calls than it saves."""
DENSITIES = (0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Work:
    """What does not change between calls of a layer with one version of its codes.

    Attributes:
        geometry: of the layer; `weights.geometry` is the same over two axes.
        pad: input codes of the value zero, ``[C]``, where they are not 0.
        trains: whether the codes change from call to call, so that packing them counts.
    """

    geometry: Geometry
    weights: Weights
    widths: Widths
    pad: Tensor | None
    trains: bool

    def candidates(self, x: Tensor) -> list[str]:
        """The paths that may run for this input: the forced one, or all that are proven and make sense.

        Raises:
            Unsupported: the forced path is not proven.
        """
        machine = machine_of(kernels.library() is not None, kernels.has_vnni())
        reasons, asked = refusals(self.widths, self.geometry, machine), forced()
        if asked is not None:
            if asked in reasons:
                raise Unsupported(f"path {asked} is not proven exact for this layer: {reasons[asked]}")
            return [asked]
        if "float32" in reasons:
            return ["float64"]
        outputs = x.shape[0] * self.weights.geometry.weight_shape[0] * _positions(self.weights.geometry, x)
        if outputs * self.geometry.fan_in < SMALL_WORK:
            return ["float32"]
        return [name for name in PATHS if name not in reasons and name != "float64"]


def _positions(geometry: Geometry, x: Tensor) -> int:
    height, width = geometry.output_size(tuple(x.shape[2:]))
    return height * width


def run(work: Work, x: Tensor, weight: Tensor) -> tuple[Tensor, ByteInput | None, list[str]]:
    """Sums of ``x: [N, C, H, W]`` with the gained weights, its bytes if they were made, path and key of the choice."""
    names = work.candidates(x)
    geometry, packed = work.weights.geometry, None
    if any(name in BYTE_PATHS for name in names):
        packed = as_bytes(x, geometry, work.widths, work.pad)
        if packed is None:  # no whole numbers, or more than was promised: nothing is proven about bytes
            names = [name for name in names if name not in BYTE_PATHS] or ["float32"]
    weight = weight.detach()
    runs = {name: _runner(name, work, x, weight, packed) for name in names}
    name, key = names[0], ""
    if len(names) > 1:
        key = _key(work, x, packed)
        name = choice.fastest(key, _timed_runs(runs, work, x, weight, packed))
    sums = runs[name]()
    if sums is None:  # a code that is no byte
        name = "float32"
        sums = float_paths.sums("float32", geometry, x, weight, work.pad)
    return sums, packed, [name, key]


def _runner(
    name: str, work: Work, x: Tensor, weight: Tensor, packed: ByteInput | None, weights: Weights | None = None
) -> Callable[[], Tensor | None]:
    if name in BYTE_PATHS:
        assert packed is not None
        return functools.partial(BYTE_PATHS[name], packed, work.weights if weights is None else weights)
    return functools.partial(float_paths.sums, name, work.weights.geometry, x, weight, work.pad)


def _timed_runs(
    runs: dict[str, Callable[[], Tensor | None]], work: Work, x: Tensor, weight: Tensor, packed: ByteInput | None
) -> dict[str, Callable[[], Tensor | None]]:
    """The same, packing the codes each time if they change each time."""
    if not work.trains:
        return runs
    made = work.weights

    def fresh(name: str) -> Callable[[], Tensor | None]:
        return lambda: _runner(
            name, work, x, weight, packed, Weights(made.codes, made.gain, made.geometry, {}, made.is_linear)
        )()

    return {name: fresh(name) if name in BYTE_PATHS else run for name, run in runs.items()}


def _key(work: Work, x: Tensor, packed: ByteInput | None) -> str:
    geometry = work.geometry
    live = sum(packed.density >= edge for edge in DENSITIES) if packed is not None else ""
    order = "last" if x.stride(1) == 1 else "first"
    parts = (
        "x".join(map(str, x.shape)), order, "x".join(map(str, geometry.weight_shape)), geometry.stride,
        geometry.padding, geometry.dilation, geometry.groups, x.dtype, work.widths.shift, live,
        "trains" if work.trains else "fixed", torch.get_num_threads(),
    )  # fmt: skip
    return " ".join(str(part).replace(" ", "") for part in parts)

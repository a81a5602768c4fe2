"""One exact product: its operands as they are, the paths that are proven for them, and how each runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikequant.law.errors import Unsupported
from spikequant.nn.products import byte_paths, choice, event_gradients, float_paths, kernels
from spikequant.nn.products.byte_input import ByteInput, as_bytes
from spikequant.nn.products.encode import Coding
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
        coding: where the codes came from, if gradients go straight to the weights; `weights.gain_apart` then holds.
    """

    geometry: Geometry
    weights: Weights
    widths: Widths
    pad: Tensor | None
    trains: bool
    coding: Coding | None = None

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
    names, packed = work.candidates(x), None
    weight = weight.detach() if work.coding is None else work.weights.plain
    shape = _shape_key(work, x)
    may_be_events = event_gradients.may_be_events(work.weights.geometry, tuple(x.shape))
    if len(names) > 1 and choice.settled(shape) in names and not may_be_events:
        names = [choice.settled(shape)]
    if any(name in BYTE_PATHS for name in names):
        packed = as_bytes(x, work.weights.geometry, work.widths, work.pad)
        if packed is None:  # no whole numbers, or more than was promised: nothing is proven about bytes
            names = [name for name in names if name not in BYTE_PATHS] or ["float32"]
    name, key = names[0], ""
    if len(names) > 1:
        key = f"{shape} {sum(packed.density >= edge for edge in DENSITIES) if packed is not None else 'floats'}"
        name = choice.fastest(key, {name: _timed(name, work, x, weight) for name in names})
        if name not in BYTE_PATHS:
            choice.settle(shape, name)
    sums = _by(name, work, x, weight, packed, work.weights)
    if sums is None:  # a code that is no byte
        name = "float32"
        sums = _by(name, work, x, weight, packed, work.weights)
        assert sums is not None
    return sums, packed, [name, key or shape]


def _by(name: str, work: Work, x: Tensor, weight: Tensor, packed: ByteInput | None, weights: Weights) -> Tensor | None:
    if name in BYTE_PATHS:
        return None if packed is None else BYTE_PATHS[name](packed, weights)
    sums = float_paths.sums(name, work.weights.geometry, x, weight, work.pad)
    return sums.mul_(weights.gains()[:, None, None]) if weights.gain_apart else sums


def _timed(name: str, work: Work, x: Tensor, weight: Tensor) -> Callable[[], Tensor | None]:
    """A path with all that it costs: packing the input, and the codes where they change from call to call."""
    made = work.weights

    def timed() -> Tensor | None:
        packed = as_bytes(x, made.geometry, work.widths, work.pad) if name in BYTE_PATHS else None
        weights = (
            Weights(made.codes, made.gain, made.geometry, {}, made.is_linear, made.gain_apart) if work.trains else made
        )
        return _by(name, work, x, weight, packed, weights)

    return timed


def _shape_key(work: Work, x: Tensor) -> str:
    geometry = work.geometry
    order = "last" if x.stride(1) == 1 else "first"
    parts = (
        "x".join(map(str, x.shape)), order, "x".join(map(str, geometry.weight_shape)), geometry.stride,
        geometry.padding, geometry.dilation, geometry.groups, work.widths.shift, work.widths.x_high == 1,
        "trains" if work.trains else "fixed", torch.get_num_threads(),
        *(["rows"] if byte_paths.by_byte_rows(work.weights, x.shape[1]) else []),
    )  # fmt: skip
    return " ".join(str(part).replace(" ", "") for part in parts)

"""What becomes of a node: a stage that runs it over a batch, or the reason why it has none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from spikequant.law.network import JoinNode, NeuronNode, PoolNode, SynapseNode
from spikequant.nn.layerwise.neurons import Neurons
from spikequant.nn.layerwise.values import Bytes, by_channel, empty, plane
from spikequant.nn.products import kernels
from spikequant.nn.products.byte_paths import by_byte_rows
from spikequant.nn.products.geometry import Geometry
from spikequant.nn.products.weights import Weights

NEAR = 1 << 17
"""Sums of one turn of a layer: half a megabyte stays near the processor."""
GUARD = 64
WORDS: dict[str, Any] = {"add": torch.add, "max": torch.maximum, "product": torch.mul}


class Stage(Protocol):
    """A node of the network as it runs."""

    def run(self, values: Mapping[str, Bytes], steps: int, first_sample: int) -> Bytes | Tensor:
        """Its bytes, or the doubles ``[N, T, H, W, C]`` of a node that is no byte."""
        ...


@dataclass(frozen=True, eq=False)
class Map:
    """A synapse: packed codes and the shape of the map."""

    source: str
    geometry: Geometry
    weights: Weights
    pad: Tensor | None

    def sizes(self, x: Bytes) -> tuple[list[int], tuple[int, int]]:
        """The sizes of `sq_conv` for images with their border, and the size of an output image."""
        _, _, height, width, channels = x.data.shape
        top, left = self.geometry.padding
        out = self.geometry.output_size((height, width))
        padded = [height + 2 * top, width + 2 * left, -(-channels // 4) * 4]
        return [*padded, *out, self.geometry.weight_shape[0], *self.geometry.stride], (out[0], out[1])

    def border(self, x: Bytes, size: list[int], images: int, threads: int) -> Tensor:
        """Room of each thread for images with a border of zeros, ``[threads, bytes]``."""
        many = images * size[0] * size[1] * size[2]
        room = empty((threads, many + GUARD))
        ctypes.memset(room.data_ptr(), x.shift, room.numel())
        if self.pad is not None:
            inner = room[:, :many].view(threads, -1, size[2])
            inner[..., : len(self.pad)] = (self.pad + x.shift).to(torch.uint8)
        return room

    def operands(self, x: Bytes, size: list[int], minus: Tensor, gain: Tensor) -> tuple[Any, ...]:
        """What the kernels of `layers.c` take first; the tensors must outlive the call."""
        codes, taps = self.weights.tiles(), self.geometry.tap_offsets(size[1], size[2])
        assert codes is not None
        by_rows = by_byte_rows(self.weights, size[2]) and x.shift == 0
        rows = self.weights.byte_rows() if by_rows else None
        return (
            kernels.at(x.data), kernels.sizes(*x.sizes(self.geometry.padding)),  # type: ignore[arg-type]
            kernels.sizes(*size), kernels.sizes(*taps), ctypes.c_ssize_t(len(taps)), kernels.at(codes[0]),
            kernels.at(minus), kernels.at(gain), ctypes.c_void_p() if rows is None else kernels.at(rows),
        )  # fmt: skip


def map_of(node: SynapseNode, shape: tuple[int, ...]) -> Map | str:
    """The map of a synapse behind a value of `shape`, or why it has none."""
    product = node.product
    codes = np.asarray(product.codes)
    if codes.size and max(-int(codes.min()), int(codes.max()) + 1) > 128:
        return "codes of more than 8 bits"
    if product.groups != 1:
        return "groups"
    weight = torch.from_numpy(np.ascontiguousarray(codes).astype(np.float32))
    given = Geometry(tuple(codes.shape), product.stride, product.padding, product.dilation) \
        if product.kind == "conv" else Geometry(tuple(codes.shape))  # fmt: skip
    geometry = given.in_two_axes()
    weight = weight.reshape(geometry.weight_shape)
    pads = np.asarray(product.pad_code).reshape(-1)
    pad = torch.from_numpy(pads.astype(np.float32)) if pads.any() else None
    if pad is not None and len(pad) == 1:
        pad = pad.expand(geometry.channels)
    _, height, width = plane(shape)
    cut = geometry.trimmed((height, width)) if product.kind == "conv" and pad is None else None
    if cut is not None:
        geometry, weight = cut[0], weight[cut[1]].contiguous()
    return Map(node.inputs[0].source, geometry, Weights(weight, None, geometry, {}, not given.is_conv), pad)


@dataclass(frozen=True, eq=False)
class SpikeStage:
    """A synapse and its neurons, a few samples at a time."""

    map: Map
    neurons: Neurons
    gain: Tensor

    def run(self, values: Mapping[str, Bytes], steps: int, first_sample: int) -> Bytes:
        """Spikes of all steps."""
        x, loaded = values[self.map.source], kernels.library()
        codes = self.map.weights.tiles()
        assert loaded is not None and codes is not None
        size, (height, width) = self.map.sizes(x)
        batch, shown = x.data.shape[:2]
        places = self.neurons.places
        together = max(1, min(-(-batch // torch.get_num_threads()), NEAR // (shown * places)))
        out = empty((batch, steps, height, width, size[5]))
        minus = codes[1] * x.shift
        keys = self.neurons.keys(steps)
        still = shown == 1 and steps > 1
        pointers = self.neurons.pointers(None, None, keys)
        sizes = self.neurons.sizes(steps, first_sample, places=places, x_step=0 if still else places, still=still)
        given = (ctypes.c_int64 * len(sizes))(*sizes)
        addresses = (ctypes.c_void_p * len(pointers))(*pointers)
        operands = self.map.operands(x, size, minus, self.gain)

        threads = kernels.threads(batch * steps * places * 8, -(-batch // together))
        room = self.map.border(x, size, together * shown, threads.value)
        sums = empty((threads.value * together * shown * places * 4,)).view(torch.float32)
        failed = loaded.sq_layer(
            *operands, kernels.at(room), ctypes.c_ssize_t(room.shape[1]), kernels.at(sums),
            ctypes.c_ssize_t(together * shown * places), ctypes.cast(self.neurons.kernel.function, ctypes.c_void_p),
            given, ctypes.c_ssize_t(len(sizes)), addresses, ctypes.c_ssize_t(len(pointers)), kernels.at(out),
            *(ctypes.c_ssize_t(value) for value in (steps, places, together, batch)), threads,
        )  # fmt: skip
        if failed:
            raise MemoryError("a layer found no memory for its scratch; use smaller batches")
        return Bytes(out)


@dataclass(frozen=True, eq=False)
class WideStage:
    """A synapse and neurons whose numbers need doubles: a readout."""

    map: Map
    neurons: Neurons
    gain: Tensor

    def run(self, values: Mapping[str, Bytes], steps: int, first_sample: int) -> Tensor:
        """The neurons' output of all steps, ``[N, T, H, W, C]`` in doubles."""
        x, loaded = values[self.map.source], kernels.library()
        codes = self.map.weights.tiles()
        assert loaded is not None and codes is not None
        size, (height, width) = self.map.sizes(x)
        batch, shown = x.data.shape[:2]
        sums = torch.empty(batch, shown, height, width, size[5])
        ones, minus = torch.ones(size[5]), codes[1] * x.shift
        operands = self.map.operands(x, size, minus, ones)
        together = max(1, min(-(-batch // torch.get_num_threads()), NEAR // max(1, shown * self.neurons.places)))

        threads = kernels.threads(sums.numel() * 64, -(-batch // together))
        room = self.map.border(x, size, together * shown, threads.value)
        loaded.sq_layer_sums(
            *operands, kernels.at(room), ctypes.c_ssize_t(room.shape[1]), kernels.at(sums),
            ctypes.c_ssize_t(together), ctypes.c_ssize_t(batch), threads,
        )  # fmt: skip
        train = (sums.to(torch.float64) * self.gain).transpose(0, 1).expand(steps, -1, -1, -1, -1).contiguous()
        out, keys = torch.empty_like(train), self.neurons.keys(steps)
        places = batch * self.neurons.places
        self.neurons.kernel(
            self.neurons.sizes(steps, first_sample, places=places, x_step=places, still=False),
            self.neurons.pointers(train.data_ptr(), out.data_ptr(), keys),
        )
        return out.transpose(0, 1)


@dataclass(frozen=True, eq=False)
class PoolStage:
    """Sum or maximum over windows."""

    node: PoolNode

    def run(self, values: Mapping[str, Bytes], steps: int, first_sample: int) -> Bytes:
        """The pooled bytes."""
        x, loaded, node = values[self.node.inputs[0].source], kernels.library(), self.node
        assert loaded is not None
        batch, shown = x.data.shape[:2]
        channels, height, width = plane(node.shape)
        out = empty((batch, shown, height, width, channels))
        axes = [(*([fill] * (2 - len(given))), *given)
                for given, fill in ((node.kernel, 1), (node.stride, 1), (node.padding, 0))]  # fmt: skip
        window = kernels.sizes(*axes[0], *axes[1], *axes[2], height, width)
        sizes = kernels.sizes(*x.sizes(), 0, 0)

        loaded.sq_layer_pool(
            kernels.at(x.data), sizes, window, ctypes.c_int(node.kind == "max"), kernels.at(out),
            ctypes.c_ssize_t(batch), kernels.threads(x.data.numel(), batch),
        )  # fmt: skip
        return Bytes(out)


@dataclass(frozen=True, eq=False)
class FlattenStage:
    """Features in C order."""

    source: str

    def run(self, values: Mapping[str, Bytes], steps: int, first_sample: int) -> Bytes:
        """The same bytes as features."""
        return values[self.source].flattened()


@dataclass(frozen=True, eq=False)
class JoinStage:
    """Several values become one."""

    node: JoinNode

    def run(self, values: Mapping[str, Bytes], steps: int, first_sample: int) -> Bytes:
        """The joined bytes; no sum leaves a byte, by proof."""
        found = [values[edge.source] for edge in self.node.inputs]
        shown = max(value.data.shape[1] for value in found)
        parts = [value.over(shown) for value in found]
        if self.node.kind == "iand":
            return Bytes((1 - parts[0]) * parts[1])
        scaled = [part if gain == 1 else part * gain for part, gain in zip(parts, self.node.gains, strict=True)]
        if self.node.kind == "concat":
            return Bytes(torch.cat(scaled, -1).contiguous())
        word: Callable[[Tensor, Tensor], Tensor] = WORDS[self.node.kind]
        return Bytes(reduce(word, scaled).contiguous())


def gain_of(node: NeuronNode, dtype: torch.dtype) -> Tensor | None:
    """The gain of a node's only input, one per channel; None if it differs within a channel."""
    gain = by_channel(np.asarray(node.gains[0]), node.shape)
    return None if gain is None else gain.to(dtype).expand(node.shape[0]).contiguous()

"""The neurons of a node as a kernel: its parameters, its noise, how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikequant.law.network import NeuronNode
from spikequant.law.neurons import prepare
from spikequant.law.ops import IntOps
from spikequant.nn.fused import LONG
from spikequant.nn.layerwise.values import by_channel, plane
from spikequant.nn.loop import Noise
from spikequant.readers.kernels import ForwardKey, Kernel, forward_kernel


@dataclass(frozen=True, eq=False)
class Neurons:
    """A node's kernel and what it is given in every call.

    Attributes:
        shape: ``(C, H, W)`` of one sample.
        values: parameters as the kernel takes them, one value or one per channel.
        layer: its number among the neuron nodes, for the noise.
    """

    node: NeuronNode
    shape: tuple[int, int, int]
    kernel: Kernel
    values: tuple[Tensor, ...]
    layer: int

    @property
    def places(self) -> int:
        """Neurons of a sample."""
        channels, height, width = self.shape
        return channels * height * width

    def sizes(self, steps: int, first_sample: int, *, places: int, x_step: int, still: bool) -> list[int]:
        """The integers of `readers/kernels/frame.c`, for one thread."""
        channels = self.shape[0]
        segment = steps if steps <= LONG else 1
        return [
            steps, places, channels, 1, x_step, 0, 0, self.node.spec.adapt_every, 1, self.places, first_sample, 1, 1,
            segment, int(still), *(int(value.numel() > 1) for value in self.values),
        ]  # fmt: skip

    def keys(self, steps: int) -> Any:
        """Where the noise of every step begins; None without noise."""
        noises = self.kernel.face.noises
        return Noise(self.node.seed, self.layer, 0).keys(noises, 0, steps) if noises else None

    def pointers(self, x: int | None, out: int | None, keys: Any) -> list[int | None]:
        """Addresses in the order of `readers/kernels/forward.c`, from rest, the last states not kept."""
        states = 2 * len(self.kernel.face.states)
        given = [value.data_ptr() for value in self.values]
        return [x, out, None if keys is None else keys.ctypes.data, *given, *([None] * states)]


def neurons(node: NeuronNode, layer: int, *, double: bool) -> Neurons | None:
    """The kernel of a node, writing bytes, or doubles for wide ones; None if a parameter varies within a channel.

    Raises:
        Unsupported: the law's step has a word that no kernel has, or there is no compiler.
    """
    shape = plane(node.shape)
    dtype = torch.float64 if double else torch.float32
    ready = prepare(IntOps(), node.spec, {name: np.asarray(value) for name, value in node.params.items()})
    names, values = tuple(sorted(ready)), {}
    for name in names:
        value = by_channel(np.asarray(ready[name]), node.shape)
        if value is None:
            return None
        values[name] = value.to(dtype)
    kernel = forward_kernel(ForwardKey(node.spec, names, 1, True, double, not double))
    return Neurons(node, shape, kernel, tuple(values[name] for name in kernel.face.params), layer)

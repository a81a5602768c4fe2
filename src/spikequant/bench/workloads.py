"""The networks of the benchmark, each built from the parts of any library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from spikequant.bench.parts import Parts, Timed
from spikequant.models.sew_resnet import SEWResNet

ACTIVE = 0.6
"""Standard deviation of every weighted layer's output; a neuron of threshold 1 then fires in some 7 % of the steps."""


@dataclass(frozen=True)
class Workload:
    """A network and its input.

    Attributes:
        build: the network from a library's parts.
        shape: of one input of one step.
        active: share of input values that are 1 (events); 0 for real values, the same at every step.
        plain: whether libraries whose neuron scales its input can run it (no batch norm).
    """

    name: str
    title: str
    build: Callable[[Parts], nn.Module]
    shape: tuple[int, ...]
    steps: int
    batch: int
    active: float
    plain: bool = True

    def input(self, *, steps: int | None = None, batch: int | None = None, seed: int = 0) -> Tensor:
        """``[T, N, ...]``."""
        generator = torch.Generator().manual_seed(seed)
        shape = (steps or self.steps, batch or self.batch, *self.shape)
        if self.active == 0.0:
            return torch.rand(1, *shape[1:], generator=generator).expand(shape)
        return (torch.rand(shape, generator=generator) < self.active).float()

    def network(self, parts: Parts, weights: list[Tensor]) -> Timed:
        """The network with the given weights (`weights_of`)."""
        net = Timed(self.build(parts), parts)
        own = _tensors(net)
        with torch.no_grad():
            for k, (mine, given) in enumerate(zip(own, weights, strict=True)):
                feeds_neurons = given.dim() > 1 and k < len(own) - 1
                mine.copy_(given * parts.gain if feeds_neurons else given)
        return net


def weights_of(workload: Workload, parts: Parts, x: Tensor, seed: int = 0) -> list[Tensor]:
    """Random weights under which every layer of neurons is alive."""
    torch.manual_seed(seed)
    net = Timed(workload.build(parts), parts)
    hooks = [
        layer.register_forward_hook(_excite_)
        for layer in net.modules()
        if workload.plain and isinstance(layer, (nn.Linear, nn.Conv2d))
    ]
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean over what it sees: this batch
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return [tensor.clone() for tensor in _tensors(net)]


def _excite_(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
    scale = ACTIVE / out.std().clamp_min(1e-6)
    layer.get_parameter("weight").mul_(scale)
    return out * scale


def _tensors(net: nn.Module) -> list[Tensor]:
    """Weights in the order of the network's layers, and factors, offsets and statistics of its batch norms."""
    found: list[Tensor] = []
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            found.append(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            found += [layer.weight, layer.bias, *(s for s in (layer.running_mean, layer.running_var) if s is not None)]
    return found


def _conv(parts: Parts, wide: int = 16) -> nn.Module:
    return nn.Sequential(
        parts.synapse(nn.Conv2d(2, wide, 3, padding=1, bias=False)), parts.neuron(), parts.stateless(nn.MaxPool2d(2)),
        parts.synapse(nn.Conv2d(wide, 2 * wide, 3, padding=1, bias=False)), parts.neuron(),
        parts.stateless(nn.MaxPool2d(2)),
        parts.stateless(nn.Flatten(), parts.weighted(nn.Linear(2 * wide * 8 * 8, 10, bias=False))),
    )  # fmt: skip


def conv_of_width(wide: int) -> Workload:
    """The convolutional network with `wide` channels in its first layer and twice as many in its second."""
    title = f"conv{wide}-LIF-pool-conv{2 * wide}-LIF-pool-FC10 on 2x34x34 events"
    return replace(WORKLOADS["conv"], title=title, build=partial(_conv, wide=wide))


def _mlp(parts: Parts) -> nn.Module:
    return nn.Sequential(
        parts.synapse(nn.Linear(784, 1000, bias=False)), parts.neuron(),
        parts.synapse(nn.Linear(1000, 10, bias=False)),
    )  # fmt: skip


def _sew(parts: Parts) -> nn.Module:
    return SEWResNet((2, 2, 2, 2), neuron=parts.neuron, stateless=parts.stateless, weighted=parts.weighted, classes=10)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("conv", "conv16-LIF-pool-conv32-LIF-pool-FC10 on 2x34x34 events", _conv, (2, 34, 34), 16, 32, 0.03),
        Workload("mlp", "784-1000-10 on 784 events", _mlp, (784,), 16, 32, 0.10),
        Workload("sew", "SEW-ResNet-18 (ADD) on 3x32x32 images", _sew, (3, 32, 32), 4, 32, 0.0, plain=False),
    )
}

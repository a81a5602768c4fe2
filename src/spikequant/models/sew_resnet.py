"""Spike-element-wise residual networks (Fang et al. 2021, "Deep Residual Learning in Spiking Neural Networks")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor, nn

from spikequant.law.errors import Unsupported
from spikequant.nn import LIF, Surrogate
from spikequant.nn.over_time import OverTime

Connect = Literal["ADD", "AND", "IAND"]
Stem = Literal["imagenet", "cifar"]


def _lif() -> nn.Module:
    return LIF(leak=0.5, surrogate=Surrogate("atan", 2.0), detach_reset=True)


def _plain(layer: nn.Module) -> nn.Module:
    return layer


def connected(x: Tensor, through: Tensor, connect: Connect) -> Tensor:
    """What leaves a block: ``x + y``, ``x y`` or ``x (1 - y)`` of the block's input `x` and its path `through` (``y``).

    Source: Fang et al. 2021, table 1.

    >>> import torch
    >>> x, y = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    >>> [connected(x, y, how).tolist() for how in ("ADD", "AND", "IAND")]
    [[0.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]]
    """
    if connect == "ADD":
        return through + x
    return x * through if connect == "AND" else x * (1.0 - through)


class SEWBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and neurons; spikes in and out are joined (`connected`)."""

    def __init__(
        self,
        inside: int,
        outside: int,
        stride: int,
        *,
        neuron: Callable[[], nn.Module],
        stateless: Callable[..., nn.Module],
        weighted: Callable[[nn.Module], nn.Module],
        connect: Connect = "ADD",
    ) -> None:
        super().__init__()
        first = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
        second = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.connect: Connect = connect
        self.conv1, self.lif1 = stateless(weighted(first), nn.BatchNorm2d(outside)), neuron()
        self.conv2, self.lif2 = stateless(weighted(second), nn.BatchNorm2d(outside)), neuron()
        self.shortcut: nn.Module | None = None
        if stride != 1 or inside != outside:
            across = nn.Conv2d(inside, outside, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(stateless(weighted(across), nn.BatchNorm2d(outside)), neuron())

    def forward(self, x: Tensor) -> Tensor:
        """Joined spikes: whole numbers."""
        through = self.lif2(self.conv2(self.lif1(self.conv1(x))))
        return connected(x if self.shortcut is None else self.shortcut(x), through, self.connect)

    def extra_repr(self) -> str:
        """How the two paths are joined, for printing."""
        return self.connect


class SEWResNet(nn.Module):
    """A stem, stages of `SEWBlock` whose widths double, average pooling, a linear layer.

    Input ``[T, N, C, H, W]``, output ``[T, N, classes]``.  With `steps` the input is an image ``[N, C, H, W]`` that is
    shown for so many steps (its convolution is computed once), and the output the mean over time, ``[N, classes]``.

    Args:
        blocks: blocks in each stage; SEW-ResNet-18 has ``(2, 2, 2, 2)``.
        neuron: makes a layer of neurons.
        stateless: makes layers without memory take a train of steps.
        weighted: what becomes of each convolution and of the linear layer.
        classes: outputs.
        width: channels of the first stage.
        connect: how a block joins its two paths: ``"ADD"``, ``"AND"`` or ``"IAND"``.
        stem: ``"imagenet"``: a 7x7 convolution of stride 2, then max-pooling; ``"cifar"``: a 3x3 convolution.
        steps: how long an image is shown.

    Raises:
        Unsupported: an unknown `connect` or `stem`, or numbers that make no network.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        neuron: Callable[[], nn.Module] = _lif,
        stateless: Callable[..., nn.Module] = OverTime,
        weighted: Callable[[nn.Module], nn.Module] = _plain,
        in_channels: int = 3,
        classes: int = 1000,
        width: int = 64,
        connect: Connect = "ADD",
        stem: Stem = "imagenet",
        steps: int | None = None,
    ) -> None:
        super().__init__()
        _check(blocks, {"width": width, "in_channels": in_channels, "classes": classes, "steps": steps}, connect, stem)
        self.steps, self.pool = steps, None
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        first = weighted(nn.Conv2d(in_channels, width, kernel, stride=stride, padding=kernel // 2, bias=False))
        norm = nn.BatchNorm2d(width)
        self.stem, self.lif = (stateless(first, norm) if steps is None else nn.Sequential(first, norm)), neuron()
        if stem == "imagenet":
            self.pool = stateless(nn.MaxPool2d(3, stride=2, padding=1))
        made: list[nn.Module] = []
        inside = width
        block = partial(SEWBlock, neuron=neuron, stateless=stateless, weighted=weighted, connect=connect)
        for stage, count in enumerate(blocks):
            for k in range(count):
                outside, stride = width * 2**stage, 2 if k == 0 and stage > 0 else 1
                made.append(block(inside, outside, stride))
                inside = outside
        self.blocks = nn.Sequential(*made)
        self.head = stateless(nn.AdaptiveAvgPool2d(1), nn.Flatten(), weighted(nn.Linear(inside, classes)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every step, or, of an image, their mean."""
        current = self.stem(x)
        if self.steps is not None:
            current = current.unsqueeze(0).expand(self.steps, *current.shape)
        spikes = self.lif(current)
        if self.pool is not None:
            spikes = self.pool(spikes)
        answer: Tensor = self.head(self.blocks(spikes))
        return answer if self.steps is None else answer.mean(0)


def _check(blocks: Sequence[int], numbers: dict[str, int | None], connect: object, stem: object) -> None:
    for field, value, known in (("connect", connect, get_args(Connect)), ("stem", stem, get_args(Stem))):
        if value not in known:
            raise Unsupported(f"SEWResNet: {field} = {value!r}; expected one of {', '.join(map(repr, known))}")
    if not blocks or any(count < 1 for count in blocks):
        raise Unsupported(f"SEWResNet: blocks = {tuple(blocks)}; expected one or more blocks in every stage")
    for field, number in numbers.items():
        if number is not None and number < 1:
            raise Unsupported(f"SEWResNet: {field} = {number}; expected 1 or more")


def sew_resnet8(*, width: int = 16, classes: int = 10, stem: Stem = "cifar", **options: Any) -> SEWResNet:
    """Eight weighted layers: the 3x3 stem, three stages of one block (`width`, 2 and 4 times it), the linear layer.

    The layout of He et al. 2016 for CIFAR (6n + 2 layers, n = 1); Smith et al. 2026 do not say theirs.
    `options` are those of `SEWResNet`.

    >>> sum(p.numel() for p in sew_resnet8(width=16).parameters())
    78042
    """
    return SEWResNet((1, 1, 1), width=width, classes=classes, stem=stem, **options)


def sew_resnet18(**options: Any) -> SEWResNet:
    """SEW-ResNet-18; `options` are those of `SEWResNet`.

    >>> sum(p.numel() for p in sew_resnet18().parameters())
    11689512
    """
    return SEWResNet((2, 2, 2, 2), **options)


def sew_resnet34(**options: Any) -> SEWResNet:
    """SEW-ResNet-34; `options` are those of `SEWResNet`.

    >>> sum(p.numel() for p in sew_resnet34().parameters())
    21797672
    """
    return SEWResNet((3, 4, 6, 3), **options)

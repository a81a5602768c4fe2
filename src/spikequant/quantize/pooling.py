"""Poolings of modules and functions as plain numbers, or a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from spikequant.capture import Graph, GraphNode
from spikequant.law.errors import Unsupported


@dataclass(frozen=True)
class Pooling:
    """A pooling in numbers; ``repeat`` gives every value `kernel` times, as adaptive pooling of one pixel does.

    ``sum`` is the sum of a window divided by `divisor`, by default an average.
    """

    kind: Literal["sum", "max", "repeat"]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    divisor_override: int | None = None

    @property
    def divisor(self) -> int:
        """What the sum of a window is divided by."""
        return self.window if self.divisor_override is None else self.divisor_override

    @property
    def window(self) -> int:
        """Values in one window."""
        return math.prod(self.kernel)


def _tuple(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else (int(value),) * axes


def pool_options(node: GraphNode, module: nn.Module, graph: Graph) -> Pooling:
    """The pooling of a module; raises on what is not a plain sum or maximum."""
    axes = len(node.shape) - 1
    if isinstance(module, (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)):
        size = graph.node(node.inputs[0].source).shape[1:]
        if set(size) == {1}:
            return Pooling("repeat", node.shape[1:], node.shape[1:], (0,) * axes)
        if any(n % k for n, k in zip(size, node.shape[1:], strict=True)):
            raise Unsupported(
                f"{node.path}: adaptive pooling of {size} to {node.shape[1:]} has windows of different size"
            )
        kernel = tuple(n // k for n, k in zip(size, node.shape[1:], strict=True))
        return Pooling("sum", kernel, kernel, (0,) * axes)
    if not isinstance(module, (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d)):
        raise Unsupported(f"{node.path}: {type(module).__name__} has no integer form; expected a known layer")
    kernel = _tuple(module.kernel_size, axes)
    stride, padding = _tuple(module.stride, axes), _tuple(module.padding, axes)
    _check_pool(
        node.path, module.ceil_mode, getattr(module, "dilation", 1), getattr(module, "count_include_pad", True), axes
    )
    kind: Literal["sum", "max"] = "max" if isinstance(module, (nn.MaxPool1d, nn.MaxPool2d)) else "sum"
    return Pooling(kind, kernel, stride, padding, _divisor(node.path, getattr(module, "divisor_override", None)))


def functional_pool(node: GraphNode) -> Pooling:
    """The pooling of ``F.max_pool2d`` or ``F.avg_pool2d``."""
    axes, options = len(node.shape) - 1, node.options
    kernel = _tuple(options["kernel_size"], axes)
    stride = options.get("stride")
    stride = kernel if stride is None or stride == [] else _tuple(stride, axes)
    average = options["name"] == "average"
    dilation = 1 if average else options.get("dilation", 1)  # the fourth argument of avg_pool is ceil_mode
    ceil_mode = bool(options.get("dilation", False)) if average else options.get("ceil_mode", False)
    _check_pool(node.site, ceil_mode, dilation, options.get("count_include_pad", True), axes)
    divisor = _divisor(node.site, options.get("divisor_override"))
    return Pooling("sum" if average else "max", kernel, stride, _tuple(options.get("padding", 0), axes), divisor)


def _check_pool(where: str, ceil_mode: bool, dilation: Any, include_pad: bool, axes: int) -> None:
    if ceil_mode or set(_tuple(dilation, axes)) != {1} or not include_pad:
        raise Unsupported(
            f"{where}: pooling with ceil_mode={ceil_mode}, dilation={dilation}, count_include_pad={include_pad}; "
            "expected full windows of equal weight"
        )


def _divisor(where: str, divisor: int | None) -> int | None:
    if divisor is not None and divisor < 1:
        raise Unsupported(f"{where}: pooling with divisor_override={divisor}; expected a positive number")
    return divisor

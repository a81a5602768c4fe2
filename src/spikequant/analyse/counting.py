"""Count synaptic operations from what flows into the weighted layers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.capture import Graph
from spikequant.law.errors import Unsupported
from spikequant.measure import SynOps, fan_out_conv1d, fan_out_conv2d, fan_out_linear
from spikequant.nn import SYNAPSES, Synapse

WEIGHTED_BUT_UNKNOWN = (
    nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear, nn.RNNBase, nn.RNNCellBase,
    nn.MultiheadAttention, nn.EmbeddingBag, nn.Embedding,
)  # fmt: skip


@final
class Calls:
    """How often the model's own forward calls each weighted layer, and what one call holds.

    NeuroBench counts by call.  A model that is run layer by layer sees all steps of a layer
    in one call, or a static input once; the record of its own calls says how to count that
    as its own loop would.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.recording = False
        self._counts: dict[str, int] = {}
        self._looped: dict[str, int] = {}
        self._is_layerwise = False

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Within it, calls are counted and nothing else is."""
        self.recording, self._counts = True, {}
        try:
            yield
        finally:
            self.recording = False

    def count(self, path: str) -> None:
        """One call of a layer."""
        self._counts[path] = self._counts.get(path, 0) + 1

    def fits(self, graph: Graph) -> bool:
        """Whether every layer is called once, or once per step: then layer by layer counts the same."""
        for path, calls in self._counts.items():
            nodes = [node for node in graph.nodes if node.path == path and node.kind == "module"]
            if not nodes or calls not in (len(nodes), graph.steps * len(nodes)):
                return False
            if len({node.per_step for node in nodes}) > 1:
                return False
            if calls != len(nodes):
                self._looped[path] = 1 if nodes[0].per_step else graph.steps
        return True

    def layerwise(self, now: bool) -> bool:
        """Say whether the next forward runs layer by layer; returns it."""
        self._is_layerwise = now
        return now

    def steps_of(self, path: str, module: Any, x: Tensor) -> tuple[Tensor, int]:
        """The input of a layer as ``[calls, rows, *features]``, and how often that is shown."""
        if isinstance(module, Synapse) and module.input_scale is not None:
            x = module.integer_input(x)
        features = x.shape[-(module.weight.dim() - 1) :]
        repeats = self._looped.get(path, 0) if self._is_layerwise else 0
        calls = x.shape[0] // self.samples if repeats == 1 else 1
        return x.reshape(calls, -1, *features), max(repeats, 1)


def events_of(x: Tensor, *, known_spikes: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Non-zero values of each input, and whether a call holds nothing but -1, 0 and 1.

    Shapes: ``x [calls, rows, *features]`` to int64 ``[calls, *features]`` and bool ``[calls]``.
    Whole-number sums stay exact: half precision is summed in float32, a call of 2^24 rows or more in float64.  With
    `known_spikes` all values are taken to be 0 or 1 without a look.

    >>> events_of(torch.tensor([[[1.0, 0.0], [1.0, -1.0]], [[0.5, 0.0], [0.0, 0.0]]]))
    (array([[2, 1],
           [1, 0]]), array([ True, False]))
    """
    x = x.detach()
    if not x.is_floating_point():
        x = x.to(torch.float32)
    narrow = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else None
    wide = torch.float64 if x.shape[1] >= 2**24 else narrow
    square = x if known_spikes else x.square()
    if known_spikes or torch.equal(square, x):  # spikes, the usual case: one cheap pass, or three
        counts, plain = x.sum(1, dtype=wide), torch.ones(len(x), dtype=torch.bool)
    else:
        counts = (x != 0).to(torch.float32).sum(1, dtype=wide)
        plain = (square == x.abs()).flatten(1).all(1)
    return counts.to(torch.int64).numpy(force=True), plain.numpy(force=True)


def counter_of(path: str, module: Any, features: tuple[int, ...]) -> SynOps:
    """An empty counter for a layer and the features of its input.

    Raises:
        Unsupported: padding that is not zeros, which would cost operations that nobody counts.
    """
    weight = module.codes() if isinstance(module, Synapse) else module.weight
    array = weight.detach().to(torch.float32).numpy(force=True)  # numpy has no bfloat16
    if array.ndim == 2:
        return SynOps(fan_out_linear(array), array.size, layer=path)
    if getattr(module, "padding_mode", "zeros") != "zeros" or isinstance(module.padding, str):
        raise Unsupported(
            f"{path}: operations with padding {module.padding!r} of mode {getattr(module, 'padding_mode', 'zeros')!r} "
            "are not counted; expected numbers and the mode 'zeros'"
        )
    function = fan_out_conv1d if array.ndim == 3 else fan_out_conv2d
    options = {name: tuple(getattr(module, name)) for name in ("stride", "padding", "dilation")}
    fan_out = function(array, features, groups=module.groups, **options)
    dense = function(np.ones_like(array), features, groups=module.groups, **options)
    return SynOps(fan_out, int(dense.sum()), layer=path)


def check_countable(model: nn.Module) -> None:
    """Refuse weighted layers whose operations would be dropped in silence.

    Raises:
        Unsupported: a layer that is neither linear nor a 1d or 2d convolution.
    """
    for path, module in model.named_modules():
        if isinstance(module, WEIGHTED_BUT_UNKNOWN):
            raise Unsupported(
                f"{path or 'the model'}: operations of {type(module).__name__} cannot be counted; expected one of "
                f"{', '.join(kind.__name__ for kind in SYNAPSES)}"
            )

"""Accuracy of an integer network: layer by layer on bytes, as compiled C with threads over the batch, or golden."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from spikequant.law.errors import DataError
from spikequant.law.network import IntNet
from spikequant.nn.layerwise import layerwise
from spikequant.readers import golden, native

COMPILED_UP_TO = 4_000_000
"""Weights up to which the C text compiles in seconds."""


class IntegerRunner:
    """An integer network as a function of a batch: scores ``[N, classes]``.

    Attributes:
        reader: ``layers`` (`nn/layerwise`) where every node has a stage; else ``c99``; ``golden`` where there is no C
            compiler or the network is too large to be compiled at once.
        refused: why it is not ``layers``; empty where it is.
    """

    def __init__(self, net: IntNet, *, threads: int | None = None) -> None:
        if net.decoder.name.endswith("_train"):
            raise DataError(
                f"evaluate: this network gives {net.decoder.name}, one row per step; expected scores [N, classes]"
            )
        self.net = net
        self.layers, self.refused = layerwise(net)
        self.compiled = None
        self.reader = "layers"
        if self.layers is None:
            weights = sum(node.product.codes.size for node in net.synapses)
            fits = native.find_compiler() is not None and weights <= COMPILED_UP_TO
            self.reader = "c99" if fits else "golden"
            self.compiled = native.compile(net, threads=threads or os.cpu_count() or 1) if fits else None

    def __call__(self, x: Tensor, first_sample: int = 0) -> Tensor:
        """Integer scores of a batch as the network takes it: ``[T, N, ...]``, or ``[N, ...]`` for a static input.

        `first_sample` is the number of its first sample in the noise of stochastic rounding.
        """
        if self.layers is not None:
            return torch.from_numpy(self.layers.run(x.detach().cpu(), first_sample=first_sample))
        values = x.detach().cpu().numpy()
        scores = (
            golden.run(self.net, golden.encode(self.net, values), first_sample=first_sample, trace=False).scores
            if self.compiled is None
            else self.compiled.run(values, first_sample=first_sample)
        )
        return torch.from_numpy(np.ascontiguousarray(scores))

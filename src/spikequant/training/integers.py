"""Accuracy of an integer network: layer by layer on bytes, as compiled C with threads over the batch, or golden."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from spikequant.law.errors import DataError
from spikequant.law.network import IntNet
from spikequant.nn.integer_readers import choose_reader
from spikequant.readers import golden, native


class IntegerRunner:
    """An integer network as a function of a batch: scores ``[N, classes]``.

    Attributes:
        reader: ``layers`` (`nn/layerwise`) where every node has a stage; else ``c99``; ``golden`` where there is no C
            compiler or the network is too large to be compiled at once; or the one that `sq.nn.use_reader` asks for.
        refused: why it cannot be ``layers``; empty where it can.
    """

    def __init__(self, net: IntNet, *, threads: int | None = None) -> None:
        if net.decoder.name.endswith("_train"):
            raise DataError(
                f"evaluate: this network gives {net.decoder.name}, one row per step; expected scores [N, classes]"
            )
        self.net = net
        choice = choose_reader(net)
        self.layers, self.reader, self.refused = choice.layers, choice.reader, choice.refused.get("layers", "")
        self.compiled = None
        if self.reader == "c99":
            self.compiled = native.compile(net, threads=threads or os.cpu_count() or 1, engine="c")

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

"""Bytes of the weights of a network, counted from their shapes, with binary codes in most layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def weight_counts(make: Callable[[], nn.Module]) -> list[int]:
    """Weights of every convolution and linear layer, from input to output; nothing is allocated.

    >>> weight_counts(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(5, 6)))
    [72, 30]
    """
    with torch.device("meta"):
        model = make()
    return [m.weight.numel() for m in model.modules() if isinstance(m, WEIGHTED)]


def times_smaller(counts: Sequence[int], real: Sequence[int], *, bits: int = 1) -> float:
    """Float32 bytes over the bytes with `bits` a weight, but for the layers `real` (indices), which stay float32.

    >>> times_smaller([32, 3200], []), round(times_smaller([32, 3200], [0]), 2)
    (32.0, 24.48)
    """
    kept = {index % len(counts) for index in real}
    stored = sum(count * (32 if index in kept else bits) for index, count in enumerate(counts))
    return 32 * sum(counts) / stored


def bytes_section(networks: Mapping[str, Callable[[], nn.Module]]) -> list[str]:
    """A table of networks: their weights, and how many times smaller binary ones are."""
    lines = [
        "", "## Weight bytes of the paper's networks", "",
        "Counted from shapes, weights alone (one scale a layer is left out); times smaller than float32 when binary, "
        "with the first convolution in float32, with the first and the last layer, and with none.", "",
        "| network | weights | first in float | first and last in float | all binary |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, make in networks.items():
        counts = weight_counts(make)
        ratios = [times_smaller(counts, real) for real in ([0], [0, -1], [])]
        lines.append(f"| {name} | {sum(counts):,} | " + " | ".join(f"{ratio:.1f}" for ratio in ratios) + " |")
    return lines

"""Hutchinson's estimate of all traces at once, over batches that may be cut into pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spikequant.analyse.curvature import Curvature
from spikequant.analyse.settled import Stop
from spikequant.analyse.traces import LayerTrace
from spikequant.law.errors import DataError

LEAST_PROBES = 8
Pieces = Sequence[tuple[Tensor, Tensor]]
"""A batch, cut."""


def hutchinson(
    at: Curvature, pieces: Sequence[Pieces], curvature: str, stop: Stop, most: int, seed: int
) -> tuple[list[LayerTrace], bool]:
    """Rows with their standard errors, and whether `stop` found them good enough within `most` probes.

    Batches of one piece get a probe a round, others eight each time their graph is made.
    """
    draw = {"hessian": at.hessian_sample, "gauss-newton": at.gauss_newton_sample, "fisher": at.fisher_sample}[curvature]
    generator = torch.Generator().manual_seed(seed)
    found: list[list[float]] = []
    sizes: list[int] = []
    rows: list[LayerTrace] = []
    visit = 1 if all(len(batch) == 1 for batch in pieces) else min(LEAST_PROBES, most // len(pieces))
    while len(found) + visit * len(pieces) <= most:
        for batch in pieces:
            found += _visit(at, batch, draw, generator, visit)
            sizes += [sum(len(y) for _, y in batch)] * visit
        if len(found) < LEAST_PROBES:
            continue
        rows = mean_rows(at, found, sizes)
        if stop(rows, len(found)):
            return rows, True
        if curvature == "hessian" and len(found) < 2 * LEAST_PROBES:  # the first probes tell how long the rest are
            at.balance([math.sqrt(sum(v * v for v in column) / len(found)) for column in zip(*found, strict=True)])
    return (rows or mean_rows(at, found, sizes)), False


def _visit(
    at: Curvature,
    batch: Pieces,
    draw: Callable[[torch.Generator], list[float]],
    generator: torch.Generator,
    probes: int,
) -> list[list[float]]:
    """Samples of the traces of one batch, its pieces added up."""
    whole = sum(len(y) for _, y in batch)
    total = torch.zeros(probes, len(at.places), dtype=torch.float64)
    for x, y in batch:
        at.run(x, y)
        total += len(y) / whole * torch.tensor([draw(generator) for _ in range(probes)], dtype=torch.float64)
    result: list[list[float]] = total.tolist()
    return result


def mean_rows(at: Curvature, found: Sequence[Sequence[float]], sizes: Sequence[int]) -> list[LayerTrace]:
    """Means weighted by the samples behind each probe, and their standard errors (of a ratio of means)."""
    n, samples = len(found), torch.tensor(found, dtype=torch.float64)
    shares = (torch.tensor(sizes, dtype=torch.float64) / sum(sizes))[:, None]
    means = (shares * samples).sum(0)
    errors = ((shares * (samples - means)) ** 2).sum(0).sqrt() * math.sqrt(n / (n - 1))
    return [
        LayerTrace(place.layer, place.role, float(mean), float(error), place.numel, len(found))
        for place, mean, error in zip(at.places, means, errors, strict=True)
    ]


def check_mean(at: Curvature, batch: Pieces) -> None:
    """A batch in pieces needs a loss that is the mean over the samples.

    Raises:
        DataError: it is another one.
    """
    if len(batch) == 1:
        return
    outputs = []
    parts = 0.0
    for x, y in batch:
        at.run(x, y)
        outputs.append(at.outputs.detach())
        parts += len(y) * float(at.loss(outputs[-1], y).detach())
    targets = torch.cat([y for _, y in batch])
    whole, parts = float(at.loss(torch.cat(outputs), targets)), parts / len(targets)
    if not math.isclose(whole, parts, rel_tol=1e-4, abs_tol=1e-6):
        raise DataError(
            f"the loss of a batch is {whole:.6g} and the mean over its samples {parts:.6g}; at_once needs a loss that "
            "is a mean over samples"
        )

"""`compare`: what quantization did to accuracy, firing behaviour, memory and operations."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.analyse.memory import connection_sparsity, memory_rows
from spikequant.analyse.probe import Observation, observe
from spikequant.analyse.records import AnnBaseline, Comparison, LayerBehaviour, LayerOperations, Side
from spikequant.law.errors import DataError
from spikequant.measure import (
    dead_share,
    emd,
    energy_pj,
    matched_l1,
    ram_bits,
    saturated_share,
    silent_share,
)


def paired_difference(reference: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Change of accuracy in points and half of its 95 % interval, from per-sample right / wrong.

    ``d_i = other_i - reference_i``; interval ``1.96 * std(d) / sqrt(n)``.

    >>> paired_difference(np.array([1, 1, 0, 1]), np.array([1, 0, 1, 1]))[0]
    0.0
    """
    d = 100.0 * (other.astype(np.float64) - reference.astype(np.float64))
    return float(d.mean()), float(1.96 * d.std(ddof=1) / math.sqrt(len(d))) if len(d) > 1 else float("nan")


def compare(
    reference: nn.Module,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    other_seed: nn.Module | None = None,
    ann: AnnBaseline | None = None,
    raster_sample: int = 0,
    dead_below: float = 0.05,
) -> Comparison:
    """Run both networks over `batches` (a re-iterable with a fixed order) and compare.

    Args:
        reference: the network before quantization.
        model: the same network after `quantize_`.
        batches: ``(input, target)``.
        other_seed: a float network of another seed: gives the seed floor of the EMD.
        ann: a same-bits network without spikes (`ann_baseline`), to be kept beside them.
        raster_sample: the sample whose spikes are kept, counted from 0.
        dead_below: rate under which a neuron counts as dead.

    Raises:
        DataError: the two networks have different neuron layers, or the data changed between the passes.
    """
    before, after = observe(reference, batches), observe(model, batches)
    if list(before.firing) != list(after.firing):
        raise DataError(
            f"compare: the networks have different neuron layers, {list(before.firing)} and {list(after.firing)}; "
            "expected the same network before and after quantize_"
        )
    if len(before.right) != len(after.right) or bool((torch.cat(before.targets) != torch.cat(after.targets)).any()):
        raise DataError(
            "compare: the targets changed between the two passes; use batches in a fixed order (shuffle=False)"
        )
    other = None if other_seed is None else observe(other_seed, batches, operations=False)
    difference, interval = paired_difference(before.right, after.right)
    return Comparison(
        reference=_side(reference, before),
        quantized=_side(model, after),
        samples=len(before.right),
        steps=before.steps,
        difference=difference,
        interval=interval,
        layers=tuple(_layer(path, before, after, other, dead_below) for path in before.firing),
        dead_below=dead_below,
        ann=ann,
    )


def _layer(
    path: str, before: Observation, after: Observation, other: Observation | None, dead_below: float
) -> LayerBehaviour:
    r, s = before.firing[path].rates(), after.firing[path].rates()
    floor = float("nan")
    if before.firing[path].batches > 1:
        floor = emd(*before.firing[path].halves())
    return LayerBehaviour(
        layer=path,
        neurons=len(r),
        emd=emd(r, s),
        floor=floor,
        seed_floor=None if other is None else emd(r, other.firing[path].rates()),
        matched_l1=matched_l1(r, s),
        rate=float(s.mean()),
        reference_rate=float(r.mean()),
        dead=dead_share(s, dead_below),
        reference_dead=dead_share(r, dead_below),
        silent=silent_share(s),
        reference_silent=silent_share(r),
        saturated=saturated_share(s),
        reference_saturated=saturated_share(r),
        rates=s.astype(np.float32),
        reference_rates=r.astype(np.float32),
    )


def _side(model: nn.Module, seen: Observation) -> Side:
    rows = tuple(memory_rows(model, seen.shapes))
    samples = len(seen.right)
    counts = {path: counter.count().per(samples) for path, counter in seen.operations.items()}
    operations = tuple(
        LayerOperations(layer=p, effective_acs=c.effective_acs, effective_macs=c.effective_macs, dense=c.dense)
        for p, c in counts.items()
    )
    emitted = sum(float(f.rates().sum()) for f in seen.firing.values())
    widths = {row.layer: row.bits for row in rows if row.role == "weight"}
    return Side(
        accuracy=float(seen.right.mean()),
        memory=rows,
        operations=operations,
        energy=energy_pj(
            sum(row.effective_macs for row in operations),
            sum(row.effective_acs for row in operations),
            weight_bits_read=sum(widths[r.layer] * (r.effective_acs + r.effective_macs) for r in operations),
            state_bits_moved=2 * seen.steps * ram_bits(rows),
        ),
        connection_sparsity=connection_sparsity(model),
        activation_sparsity=1.0 - emitted / sum(len(f.rates()) for f in seen.firing.values()),
    )

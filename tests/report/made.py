"""Comparisons made by hand, so that every sentence and every plot can be told in advance."""

from __future__ import annotations

import numpy as np

from spikequant.analyse import AnnBaseline, Comparison, LayerBehaviour, LayerOperations, Raster, Side
from spikequant.measure import (
    Divergence,
    MemoryRow,
    dead_share,
    emd,
    energy_pj,
    matched_l1,
    saturated_share,
    silent_share,
)


def side(names, *, accuracy=0.9806, weight_bits=32, state_bits=32, neurons=40, acs=1000.0):
    rows = []
    for k, name in enumerate(names):
        rows.append(MemoryRow(f"fc{k}", "weight", neurons * 20, weight_bits))
        rows.append(MemoryRow(f"fc{k}", "bias", neurons, min(32, 2 * weight_bits)))
        rows.append(MemoryRow(name, "threshold", neurons, min(32, 2 * weight_bits)))
        rows.append(MemoryRow(name, "membrane", neurons, state_bits))
    return Side(
        accuracy=accuracy,
        memory=tuple(rows),
        operations=tuple(LayerOperations(layer=f"fc{k}", effective_acs=acs, effective_macs=10.0, dense=4000.0) for k in range(len(names))),
        energy=energy_pj(10.0 * len(names), acs * len(names), weight_bits_read=acs * weight_bits, state_bits_moved=1e4),
        connection_sparsity=0.1,
        activation_sparsity=0.8,
    )  # fmt: skip


def layer(name, reference_rates, rates, *, floor=0.007, seed_floor=0.014):
    r, q = np.asarray(reference_rates, np.float32), np.asarray(rates, np.float32)
    return LayerBehaviour(
        layer=name, neurons=len(r), emd=emd(r, q), floor=floor, seed_floor=seed_floor, matched_l1=matched_l1(r, q),
        rate=float(q.mean()), reference_rate=float(r.mean()), dead=dead_share(q), reference_dead=dead_share(r),
        silent=silent_share(q), reference_silent=silent_share(r), saturated=saturated_share(q),
        reference_saturated=saturated_share(r), rates=q, reference_rates=r,
    )  # fmt: skip


def raster(name, *, steps=8, shown=24, total=40, differ=True, seed=0):
    generator = np.random.default_rng(seed)
    r = (generator.random((steps, shown)) < 0.2).astype(np.int32)
    q = r ^ (generator.random((steps, shown)) < 0.05) if differ else r.copy()
    return Raster(layer=name, sample=0, neurons=np.arange(shown) * total // shown, total=total, reference=r,
                  quantized=q.astype(np.int32))  # fmt: skip


def comparison(
    names=("lif1", "lif2"), *, difference=0.28, interval=0.94, accuracy=0.9806, after=0.9833, neurons=40, moved=0.004,
    silent=(), diverge=True, ann=None, notes=(), floor=0.007, seed_floor=0.014, seed=0, weight_bits=4, state_bits=8,
):  # fmt: skip
    generator = np.random.default_rng(seed)
    layers = []
    for name in names:
        r = generator.beta(1.2, 6, neurons) * (generator.random(neurons) > 0.2)
        q = (
            np.zeros(neurons)
            if name in silent
            else np.clip(r + moved * generator.standard_normal(neurons) + moved / 2, 0, 1)
        )
        layers.append(layer(name, r, q, floor=floor, seed_floor=seed_floor))
    return Comparison(
        reference=side(names, accuracy=accuracy, neurons=neurons),
        quantized=side(names, accuracy=after, weight_bits=weight_bits, state_bits=state_bits, neurons=neurons, acs=900.0),
        samples=360, steps=8, difference=difference, interval=interval, layers=tuple(layers),
        rasters=tuple(raster(name, differ=diverge, seed=k) for k, name in enumerate(names)),
        first_divergence=Divergence(step=2, layer=names[0], sample=1, neuron=17, expected=1.0, got=0.0) if diverge else None,
        diverged_samples=0.964 if diverge else 0.0, ann=ann, notes=tuple(notes),
    )  # fmt: skip


def ann_of(names):
    return AnnBaseline(
        side=side(names, accuracy=0.975, weight_bits=4, acs=0.0), float_accuracy=0.98, activation_bits=8,
        epochs=(12, 8), same=("layers", "weight bits"), different=("ReLU instead of spikes", "no time"),
    )  # fmt: skip
